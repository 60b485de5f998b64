//! The process that reads one file. The one rule: it takes a file in, says what is in it, and ends.

use std::io::{self, BufWriter, Read};
use std::process::ExitCode;

use super::limits;
use super::message::{Request, write_answer};
use crate::extract;

/// Reads the file on standard input and writes its text to standard output: what the sub-command [`super::WORKER`] does. To be
/// called before anything else, by a process that has one thread.
pub fn work() -> ExitCode {
    match read_one() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prodgy: this command is for the server itself: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_one() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let request = Request::read(&mut input)?;
    limits::bind(request.time, request.memory_bytes, request.parent)?;
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let limit = usize::try_from(request.output_bytes).unwrap_or(usize::MAX);
    let media_type = request.media_type.as_deref();
    let answer = extract::extract(&request.file_name, media_type, &bytes, limit);
    let mut output = BufWriter::new(io::stdout().lock());
    write_answer(&mut output, answer, request.output_bytes)
}
