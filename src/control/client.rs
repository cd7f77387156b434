//! The command's side of the control socket: asks once, waits for the answer.
//!
//! Every wait is bounded: a daemon that hangs must not hang the command as well.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Answer, Error, MAX_ANSWER, socket_in};

/// The longest that a command waits for its answer. A reload waits for its turn and reads files.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Asks the daemon whose socket lies in `directory` to read its configuration again.
pub fn reload(directory: &Path) -> Result<Answer, Error> {
    ask(&socket_in(directory), b"reload\n", ANSWER_TIMEOUT)
}

fn ask(path: &Path, question: &[u8], timeout: Duration) -> Result<Answer, Error> {
    let deadline = Instant::now() + timeout;
    let mut stream = connect(path, timeout).map_err(|source| refusal(path, timeout, source))?;
    match stream.write_all(question) {
        // It closed without listening, as it does when it is busy: the answer is there already.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.map_err(|source| broken(path, timeout, source))?,
    }
    let answer = read_answer(&mut stream, deadline);
    let answer = answer.map_err(|source| broken(path, timeout, source))?;
    understand(path, &answer)
}

/// A full queue makes connect(2) wait as long as a write would.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}

/// Everything until the daemon closes, or as much as an answer may have.
fn read_answer(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() <= MAX_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It closed before it read all that we sent; what it said comes before that.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn understand(path: &Path, answer: &[u8]) -> Result<Answer, Error> {
    let path = path.to_owned();
    let text = String::from_utf8_lossy(answer);
    let (status, rest) = text.split_once('\n').unwrap_or((&text, ""));
    match status {
        "adopted" => Ok(Answer::Adopted(rest.lines().map(str::to_owned).collect())),
        "refused" => Ok(Answer::Refused(rest.to_owned())),
        "busy" => Err(Error::Busy { path }),
        "" => Err(Error::NoAnswer { path }),
        other => Err(Error::Protocol {
            path,
            answer: other.to_owned(),
        }),
    }
}

fn refusal(path: &Path, timeout: Duration, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        // Its queue is full and it does not look: it is there, and it hangs.
        io::ErrorKind::WouldBlock => Error::Timeout { path, timeout },
        io::ErrorKind::PermissionDenied => Error::Denied { path, source },
        _ => Error::NoDaemon { path, source },
    }
}

fn broken(path: &Path, timeout: Duration, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout { path, timeout },
        _ => Error::Conversation { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// What a client makes of a daemon that sends `answer`, whatever it is asked.
    fn told(answer: &[u8]) -> Result<Answer, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let daemon = UnixListener::bind(socket_in(directory.path())).expect("bind");
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = daemon.accept().expect("a client");
                // The client stops reading after MAX_ANSWER: then the rest is not taken.
                let _ = stream.write_all(answer);
            });
            reload(directory.path())
        })
    }

    #[test]
    fn an_adopted_configuration_is_told() {
        let adopted = told(b"adopted\n1 key changed\nkey: 1 -> 2\n").expect("an answer");
        let report = ["1 key changed", "key: 1 -> 2"].map(str::to_owned);
        assert_eq!(adopted, Answer::Adopted(report.to_vec()));
        // A daemon that does not report.
        assert_eq!(
            told(b"adopted\n").expect("an answer"),
            Answer::Adopted(vec![])
        );
    }

    #[test]
    fn a_refusal_keeps_its_lines() {
        let refused = told(b"refused\nline 3:\n  unknown key\n").expect("an answer");
        let text = "line 3:\n  unknown key\n".to_owned();
        assert_eq!(refused, Answer::Refused(text));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(matches!(told(b"busy\n"), Err(Error::Busy { .. })));
        assert!(matches!(
            told(b"error unknown verb\n"),
            Err(Error::Protocol { .. })
        ));
    }

    #[test]
    fn a_daemon_that_closes_at_once_is_an_error() {
        let error = told(b"").expect_err("no answer");
        assert!(matches!(
            error,
            Error::NoAnswer { .. } | Error::Conversation { .. }
        ));
    }

    #[test]
    fn an_endless_answer_ends() {
        let endless = [b"refused\n".as_slice(), &[b'x'; 2 * MAX_ANSWER]].concat();
        let Answer::Refused(text) = told(&endless).expect("an answer") else {
            panic!("not refused");
        };
        assert!(text.len() <= MAX_ANSWER + 4096);
    }

    #[test]
    fn without_a_daemon_the_command_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = socket_in(directory.path());
        let line = reload(directory.path()).expect_err("nobody").to_string();
        assert_eq!(
            line,
            format!(
                "no daemon answers at {}: No such file or directory (is echod running?)",
                path.display()
            )
        );
    }

    #[test]
    fn a_daemon_that_does_not_accept_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = socket_in(directory.path());
        let address = SockAddr::unix(&path).expect("an address");
        let daemon = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        daemon.bind(&address).expect("bind");
        daemon.listen(0).expect("listen"); // room for one
        let _first = UnixStream::connect(&path).expect("connect");
        let error = ask(&path, b"reload\n", Duration::from_millis(1)).expect_err("no room");
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[test]
    fn a_daemon_that_never_answers_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = socket_in(directory.path());
        let _daemon = UnixListener::bind(&path).expect("bind");
        let error = ask(&path, b"reload\n", Duration::from_millis(1)).expect_err("silence");
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
}
