# bash completion for echod(8)

_echod() {
    local cur prev words cword
    _init_completion || return
    case $prev in
    --config)
        _filedir toml
        return
        ;;
    --listen)
        mapfile -t COMPREPLY < <(compgen -W '127.0.0.1: [::1]: 0.0.0.0: [::]:' -- "$cur")
        compopt -o nospace
        return
        ;;
    esac
    local known='--config --listen --help --version check reload'
    case " ${words[*]:1:cword-1} " in
    *' check '*) known='--config --print --help' ;;
    *' reload '*) known='--help' ;;
    *' --config '*) known='' ;;
    *' --listen '*) known='--listen' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$known" -- "$cur")
} && complete -F _echod echod
