# fish completion for echod(8)

complete -c echod -f
complete -c echod -n __fish_use_subcommand -a check -d 'Say whether the configuration is valid'
complete -c echod -n __fish_use_subcommand -a reload -d 'Have the running daemon read its configuration again'
complete -c echod -n 'not __fish_seen_subcommand_from reload' -l config -r -F -d 'The configuration'
complete -c echod -n __fish_use_subcommand -l listen -x -d 'Serve this ADDR:PORT, with the defaults'
complete -c echod -n __fish_use_subcommand -l version -d 'Print version'
complete -c echod -n '__fish_seen_subcommand_from check' -l print -d 'Print every key with its value'
complete -c echod -l help -d 'Print help'
