//! How long a server takes from its start to its first answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Long past any target.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the command, which is to listen on that port, asks it for its health until all is listed, and kills it.
pub fn start(port: u16, command: &[&str]) -> String {
    let started = Instant::now();
    let mut server = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the server");
    let (mut first, mut listed) = (None, None);
    while listed.is_none() && started.elapsed() < PATIENCE {
        match ask(port) {
            Some(answer) => {
                first.get_or_insert(started.elapsed());
                if !answer.contains("\"counting\":true") {
                    listed = Some((started.elapsed(), answer));
                }
            }
            None => thread::sleep(Duration::from_micros(100)),
        }
    }
    server.kill().expect("the server has ended");
    server.wait().expect("it was started here");
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let first = first.expect("an answer");
    let (listed, answer) = listed.expect("a whole answer");
    format!(
        "{{\"first\":{:.3},\"listed\":{:.3},\"answer\":{answer}}}",
        ms(first),
        ms(listed)
    )
}

/// The body of an answer, once there is one.
fn ask(port: u16) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket
        .write_all(b"GET /health?verbose HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}
