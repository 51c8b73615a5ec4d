//! The raw limit: what a loop around send(2) with ready-made frames reaches on this machine.
//!
//! The sender is a process of its own ([`sender`]), on the server's core; this side reads with the
//! same code, on the same core, as it reads from the gateway. The loop is open: it writes to one
//! socket after the other as fast as they take it.

pub(crate) mod acceptor;
pub(crate) mod relay;
pub(crate) mod sender;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use crate::args::LimitArgs;
use crate::client;
use crate::clock::Deadline;
use crate::dialect::Dialect;
use crate::error::{Context as _, Error};
use crate::frames::{Carry, Tally};
use crate::meter::{self, Machine};
use crate::mux::{Idle, Mux};
use crate::report;
use crate::sample::{Figures, Own, Sample};

/// The `limit` command.
pub(crate) fn run(args: &LimitArgs) -> Result<(), Error> {
    meter::allow_descriptors(args.subscribers)?;
    let mut runs = Vec::new();
    for frames in &args.frames {
        report::progress(format_args!("limit: {frames} frames per write"));
        let plan = Plan {
            sockets: args.subscribers,
            frame_bytes: args.frame_bytes,
            frames_per_write: *frames,
            span: args.seconds,
        };
        runs.push(measure(&plan, args.server_core, args.client_core)?);
    }
    report::print_limit(&runs)?;
    report::write_json(args.json.as_deref(), &serde_json::json!({ "machine": Machine::this(), "limit": runs }))
}

/// One measurement of the limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Sockets to send to.
    pub(crate) sockets: u32,
    /// Bytes of a frame.
    pub(crate) frame_bytes: u32,
    /// Frames per write, on average.
    pub(crate) frames_per_write: f64,
    /// Length, without the warm-up.
    pub(crate) span: Duration,
}

/// What the raw loop reached.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LimitRun {
    /// Frames per write that were asked for.
    pub(crate) wanted: f64,
    /// What was measured.
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// Measures the limit once.
///
/// # Errors
/// Also if this side counted other than the sender sent: then the counting itself is broken.
pub(crate) fn measure(plan: &Plan, sender_core: usize, client_core: usize) -> Result<LimitRun, Error> {
    let (sockets, size) = (plan.sockets.to_string(), plan.frame_bytes.to_string());
    let arguments = ["limit-sender", "--connections", &sockets, "--frame-bytes", &size];
    let mut sender = Sender::start(&arguments, sender_core, client_core)?;
    let mut mux = Mux::new(Dialect::Native, Idle::Spin)?;
    for number in 0..plan.sockets {
        let mut socket = client::dial(sender.address, number)?;
        greet(&mut socket)?;
        mux.add(socket, Carry::default())?;
    }
    sender.expect("ready")?;
    let pid = sender.child.id();

    let mut count = 0;
    let sample = |mux: &Mux, count| Sample::take(mux, &[pid], count, Own::default());
    let before = sample(&mux, count)?;
    sender.say(&format!("run {}", plan.frames_per_write))?;
    read_for(&mut mux, &mut count, warm_up(plan.span))?;
    let start = sample(&mux, count)?;
    read_for(&mut mux, &mut count, plan.span)?;
    let end = sample(&mux, count)?;
    sender.say("stop")?;
    sender.drain(&mut mux, &mut count)?;
    let after = sample(&mux, count)?;
    Ok(LimitRun { wanted: plan.frames_per_write, figures: end.since(&start).with_frames_of(&after.since(&before)) })
}

/// The questions a client asks before it only listens: the upgrade and its commands.
pub(crate) const QUESTIONS: usize = 3;

/// Asks and hears answers as a client of the gateway does. The kernel acknowledges otherwise on a connection that has only
/// listened from the start, at the reader's cost and not at the sender's: it would be another limit.
fn greet(socket: &mut TcpStream) -> Result<(), Error> {
    for _ in 0..QUESTIONS {
        socket.write_all(b"?").and_then(|()| socket.read_exact(&mut [0])).context("greet the sender")?;
    }
    Ok(())
}

/// How long a load runs before a measurement of `span` begins.
pub(crate) fn warm_up(span: Duration) -> Duration {
    (span / 5).clamp(Duration::from_millis(200), Duration::from_secs(1))
}

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(10);

fn read_for(mux: &mut Mux, count: &mut u64, span: Duration) -> Result<(), Error> {
    let end = Deadline::after(span);
    while !end.passed() {
        read_once(mux, count)?;
    }
    Ok(())
}

fn read_once(mux: &mut Mux, count: &mut u64) -> Result<(), Error> {
    let mut tally = Tally::default();
    for slot in 0..mux.wait(Duration::from_millis(20))? {
        mux.read(slot, &mut tally)?;
        *count += tally.publications();
    }
    Ok(())
}

/// The sending process, which ends with this value.
#[derive(Debug)]
struct Sender {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Sender {
    fn start(arguments: &[&str], sender_core: usize, client_core: usize) -> Result<Self, Error> {
        let binary = std::env::current_exe().context("find this program")?;
        // A child inherits the affinity of the thread that starts it.
        meter::pin(sender_core)?;
        let mut child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the sender")?;
        meter::pin(client_core)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Setup("the sender has no pipes".to_owned()));
        };
        let mut sender =
            Self { child, input, output: BufReader::new(output), address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let port = sender.expect("port")?;
        sender.address.set_port(port.parse().map_err(|_| Error::Setup(format!("the sender's port: {port:?}")))?);
        Ok(sender)
    }

    fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.input, "{line}").context("talk to the sender")
    }

    /// Awaits a line that begins with `word`; the rest of it. The sender's own deadlines bound the
    /// wait.
    fn expect(&mut self, word: &str) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("listen to the sender")?;
        line.trim_end()
            .strip_prefix(word)
            .map(|rest| rest.trim().to_owned())
            .ok_or_else(|| Error::Setup(format!("the sender said {line:?}, not {word}")))
    }

    /// Reads what is still under way and compares the sum with what the sender says it sent.
    fn drain(&mut self, mux: &mut Mux, count: &mut u64) -> Result<(), Error> {
        // The sender may be waiting for room in a socket: its answer comes only while we read.
        let deadline = Deadline::after(PATIENCE);
        loop {
            let before = *count;
            read_once(mux, count)?;
            if *count == before {
                break;
            }
            if deadline.passed() {
                return Err(Error::Setup("the sender does not stop".to_owned()));
            }
        }
        let sent = self.expect("sent")?;
        let sent: u64 = sent.parse().map_err(|_| Error::Setup(format!("the sender sent {sent:?}")))?;
        while *count < sent && !deadline.passed() {
            read_once(mux, count)?;
        }
        if *count != sent {
            return Err(Error::Setup(format!("the limit's reader counted {count} of {sent} frames")));
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It ends by itself when its input does; if it hangs, it is ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_is_bounded() {
        assert_eq!(warm_up(Duration::from_millis(100)), Duration::from_millis(200));
        assert_eq!(warm_up(Duration::from_secs(600)), Duration::from_secs(1));
    }
}
