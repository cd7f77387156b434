//! The daemon's side of the control socket, driven by the supervisor's loop.
//!
//! Owns the socket file, the listening socket and at most eight clients. Decides nothing: it turns
//! questions into `Request`s and answers into bytes. Never blocks, whatever a client does; everything is
//! bounded by the names in the room's first page. A turn of the loop:
//!
//! ```text
//! poll(fds()) until deadline() -> expire(now), handle(now) -> for each Request: answer(client, ..)
//! ```

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid};

use super::exchange::{Exchange, Progress};
use super::place::Place;
use super::{Answer, Error, MAX_CLIENTS, Verb};
use crate::tick::Tick;

/// Clients accepted in one turn, so that a flood of them does not keep the loop from its other work.
const ACCEPTS_PER_TURN: usize = 16;

/// How long nobody is accepted when the process is out of descriptors: the socket stays readable and
/// would wake the loop for ever.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Names a client; a stale one finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(u64);

/// A question that is owed an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose it is.
    pub client: ClientId,
    /// What it asks.
    pub verb: Verb,
}

/// The control socket and who is talking to it.
#[derive(Debug)]
pub struct Server {
    place: Place,
    clients: Vec<(ClientId, Exchange)>,
    next: u64,
    paused_until: Tick,
}

impl Server {
    /// Listens in `directory`. `owner` is who we shall become: the directory, if it has to be made, is
    /// theirs, and the socket is their group's.
    pub fn listen(directory: &Path, owner: Option<(Uid, Gid)>) -> Result<Server, Error> {
        Ok(Server {
            place: Place::take(directory, owner)?,
            clients: Vec::with_capacity(MAX_CLIENTS),
            next: 0,
            paused_until: Tick::NEVER,
        })
    }

    /// What to poll. When any of them is ready, call [`Server::handle`].
    pub fn fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::with_capacity(1 + self.clients.len());
        let listener = match self.is_paused() {
            true => PollFlags::empty(),
            false => PollFlags::POLLIN,
        };
        fds.push(PollFd::new(self.place.listener().as_fd(), listener));
        let clients = self.clients.iter();
        fds.extend(clients.map(|(_, client)| PollFd::new(client.fd(), client.interest())));
        fds
    }

    /// When to call [`Server::expire`].
    pub fn deadline(&self) -> Option<Tick> {
        let clients = self.clients.iter().map(|(_, client)| client.deadline());
        let first = clients.chain([self.paused_until]).min();
        first.filter(|deadline| *deadline != Tick::NEVER)
    }

    /// Ends what has lasted too long.
    pub fn expire(&mut self, now: Tick) {
        self.clients.retain_mut(|(_, client)| {
            let expired = client.deadline() <= now;
            if expired {
                client.handle_deadline(now);
            }
            !expired
        });
        if self.paused_until <= now {
            self.paused_until = Tick::NEVER;
        }
    }

    /// Does whatever can be done without waiting, and gives out the questions that came in.
    pub fn handle(&mut self, now: Tick) -> Vec<Request> {
        let mut fds = self.fds();
        // Nothing to wait for, so nothing to interrupt: an error leaves everything for the next turn.
        if poll(&mut fds, PollTimeout::ZERO).is_err() {
            return Vec::new();
        }
        let mut ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let is_arriving = ready.remove(0);
        let mut requests = Vec::new();
        let mut ready = ready.into_iter();
        self.clients.retain_mut(|(id, client)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            let progress = client.handle_ready(now);
            if let Progress::Asked(verb) = progress {
                requests.push(Request { client: *id, verb });
            }
            progress != Progress::Over
        });
        if is_arriving {
            self.accept(now);
        }
        requests
    }

    /// Answers a request, as far as the client takes it now; the rest follows in later turns. A client
    /// that has left is no matter.
    pub fn answer(&mut self, client: ClientId, answer: &Answer, now: Tick) {
        self.clients.retain_mut(|(id, exchange)| {
            *id != client || exchange.handle_answer(answer, now) != Progress::Over
        });
    }

    fn accept(&mut self, now: Tick) {
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = self.place.listener().accept();
            match accepted.and_then(|(stream, _)| Exchange::new(stream, now)) {
                Ok(mut client) if self.clients.len() >= MAX_CLIENTS => client.turn_away(now),
                Ok(client) => {
                    self.clients.push((ClientId(self.next), client));
                    self.next += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_passing(&error) => {}
                Err(_) => {
                    self.paused_until = now + ACCEPT_PAUSE;
                    return;
                }
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.paused_until != Tick::NEVER
    }
}

/// A client that left before it was accepted, or a signal: the next one may be better.
fn is_passing(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EINTR | Errno::ECONNABORTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::super::{CLIENT_TIMEOUT, MAX_ANSWER, MAX_LINE, socket_in};

    const NOW: Tick = Tick(1_000);

    struct Daemon {
        server: Server,
        directory: tempfile::TempDir,
    }

    impl Daemon {
        fn start() -> Daemon {
            let directory = tempfile::tempdir().expect("a directory");
            let server = Server::listen(directory.path(), None).expect("listening");
            Daemon { server, directory }
        }

        /// A client that has been accepted, or turned away.
        fn connect(&mut self) -> UnixStream {
            let stream = UnixStream::connect(socket_in(self.directory.path())).expect("connect");
            assert_eq!(self.turn(), []);
            stream
        }

        /// Waits until something happens, for a minute at most, and lets the server handle it.
        fn turn(&mut self) -> Vec<Request> {
            let ready = poll(&mut self.server.fds(), 60_000_u16).expect("poll");
            assert!(ready > 0, "nothing happened");
            self.server.handle(NOW)
        }

        fn ask(&mut self, mut stream: &UnixStream, question: &[u8]) -> Vec<Request> {
            stream.write_all(question).expect("written");
            self.turn()
        }

        fn is_idle(&self) -> bool {
            poll(&mut self.server.fds(), PollTimeout::ZERO).expect("poll") == 0
        }
    }

    fn everything(mut stream: UnixStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        text
    }

    #[test]
    fn a_reload_is_asked_and_answered() {
        let answers = [
            (Answer::Adopted(vec![]), "adopted\n"),
            (
                Answer::Adopted(vec!["a".to_owned(), "b".to_owned()]),
                "adopted\na\nb\n",
            ),
            (
                Answer::Refused("line 3:\n  no\n".to_owned()),
                "refused\nline 3:\n  no\n",
            ),
        ];
        for (answer, text) in answers {
            let mut daemon = Daemon::start();
            let client = daemon.connect();
            let requests = daemon.ask(&client, b"reload\n");
            assert_eq!(requests.len(), 1);
            assert_eq!(requests[0].verb, Verb::Reload);
            assert!(daemon.is_idle(), "waiting must not wake the loop");
            assert_eq!(daemon.server.deadline(), None);
            daemon.server.answer(requests[0].client, &answer, NOW);
            assert_eq!(everything(client), text);
            assert!(daemon.server.clients.is_empty());
        }
    }

    #[test]
    fn a_question_may_come_in_pieces_or_end_with_the_connection() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        assert_eq!(daemon.ask(&client, b"rel"), []);
        (&client).write_all(b"oad").expect("written");
        client.shutdown(Shutdown::Write).expect("shut");
        let requests = daemon.turn();
        assert_eq!(requests.len(), 1);
        assert!(daemon.is_idle(), "a half-closed client still waits");
        let client_id = requests[0].client;
        daemon
            .server
            .answer(client_id, &Answer::Adopted(vec![]), NOW);
        assert_eq!(everything(client), "adopted\n");
    }

    #[test]
    fn what_is_no_question_is_told_so() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        assert_eq!(daemon.ask(&client, b"shutdown\n"), []);
        assert_eq!(everything(client), "error unknown verb\n");
        assert!(daemon.server.clients.is_empty());
    }

    #[test]
    fn a_line_of_the_bound_is_read_and_one_past_it_is_not() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        let mut line = vec![b' '; MAX_LINE - 7];
        line.extend_from_slice(b"reload\n");
        assert_eq!(daemon.ask(&client, &line).len(), 1);

        let client = daemon.connect();
        line.insert(0, b' ');
        assert_eq!(daemon.ask(&client, &line), []);
        assert_eq!(everything(client), "error line too long\n");
    }

    #[test]
    fn one_client_too_many_is_turned_away() {
        let mut daemon = Daemon::start();
        let clients: Vec<_> = (0..MAX_CLIENTS).map(|_| daemon.connect()).collect();
        assert_eq!(everything(daemon.connect()), "busy\n");
        assert_eq!(daemon.server.clients.len(), MAX_CLIENTS);
        assert_eq!(daemon.ask(&clients[0], b"reload\n").len(), 1);
    }

    #[test]
    fn a_client_that_dribbles_is_ended_at_its_deadline() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        assert_eq!(daemon.ask(&client, b"re"), []);
        let deadline = NOW + CLIENT_TIMEOUT;
        assert_eq!(daemon.server.deadline(), Some(deadline));
        daemon.server.expire(Tick(deadline.0 - 1));
        assert_eq!(daemon.server.clients.len(), 1);
        daemon.server.expire(deadline);
        assert!(daemon.server.clients.is_empty());
        assert_eq!(everything(client), "error too slow\n");
    }

    #[test]
    fn a_slow_reader_is_given_the_rest_later() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        let requests = daemon.ask(&client, b"reload\n");
        daemon.server.clients[0].1.shrink_send_buffer();
        let refused = Answer::Refused("x".repeat(MAX_ANSWER - "refused\n".len()));
        daemon.server.answer(requests[0].client, &refused, NOW);
        assert_eq!(daemon.server.clients.len(), 1, "it did not take all of it");
        let reader = std::thread::spawn(move || everything(client));
        while !daemon.server.clients.is_empty() {
            assert_eq!(daemon.turn(), []);
        }
        assert_eq!(reader.join().expect("read").len(), MAX_ANSWER);
    }

    #[test]
    fn a_client_that_never_reads_is_ended_at_its_deadline() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        let requests = daemon.ask(&client, b"reload\n");
        daemon.server.clients[0].1.shrink_send_buffer();
        let refused = Answer::Refused("x".repeat(MAX_ANSWER));
        daemon.server.answer(requests[0].client, &refused, NOW);
        assert!(daemon.is_idle(), "no room must not wake the loop");
        daemon.server.expire(NOW + CLIENT_TIMEOUT);
        assert!(daemon.server.clients.is_empty());
    }

    #[test]
    fn an_answer_past_the_bound_is_cut_between_characters() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        let requests = daemon.ask(&client, b"reload\n");
        let text = "x".repeat(MAX_ANSWER - "refused\n".len() - 1) + "é";
        let reader = std::thread::spawn(move || everything(client));
        let refused = Answer::Refused(text);
        daemon.server.answer(requests[0].client, &refused, NOW);
        while !daemon.server.clients.is_empty() {
            daemon.turn();
        }
        assert_eq!(reader.join().expect("read").len(), MAX_ANSWER - 1);
    }

    #[test]
    fn a_client_that_leaves_is_forgotten_and_its_answer_goes_nowhere() {
        let mut daemon = Daemon::start();
        let client = daemon.connect();
        let requests = daemon.ask(&client, b"reload\n");
        drop(client);
        assert_eq!(daemon.turn(), []);
        assert!(daemon.server.clients.is_empty());
        let id = requests[0].client;
        daemon.server.answer(id, &Answer::Adopted(vec![]), NOW);

        let silent = daemon.connect();
        drop(silent);
        assert_eq!(daemon.turn(), []);
        assert!(daemon.server.clients.is_empty());
    }

    #[test]
    fn a_pause_ends_at_its_deadline() {
        let mut daemon = Daemon::start();
        daemon.server.paused_until = NOW + ACCEPT_PAUSE;
        let path = socket_in(daemon.directory.path());
        let _client = UnixStream::connect(path).expect("connect");
        assert!(
            daemon.is_idle(),
            "out of descriptors must not wake the loop"
        );
        let deadline = daemon.server.deadline().expect("the end of the pause");
        daemon.server.expire(deadline);
        assert_eq!(daemon.turn(), []);
        assert_eq!(daemon.server.clients.len(), 1);
    }

    #[test]
    fn the_command_and_the_daemon_understand_each_other() {
        let mut daemon = Daemon::start();
        let directory = daemon.directory.path().to_owned();
        let command = std::thread::spawn(move || super::super::reload(&directory));
        let request = loop {
            if let Some(request) = daemon.turn().pop() {
                break request;
            }
        };
        let refused = Answer::Refused("why\nnot\n".to_owned());
        daemon.server.answer(request.client, &refused, NOW);
        let answer = command.join().expect("no panic").expect("an answer");
        assert_eq!(answer, refused);
    }
}
