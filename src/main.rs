//! `landmarkd`: allocator -> arguments -> settings -> journal -> runtime -> exit code.

use std::panic;
use std::process::ExitCode;

use clap::Parser;
use landmarkd::cli::{Arguments, Exit, allocator, panics};

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "the allocator is set up before there are threads")]
    // SAFETY: this is the first statement of the program.
    unsafe {
        allocator::return_large_buffers();
    }
    panics::tell_places_only();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) => {
            // Help and version are asked for; anything else is a wrong command line.
            let exit = if help.use_stderr() { Exit::Usage } else { Exit::Success };
            // Nobody is left to tell when even this cannot be printed.
            let _ = help.print();
            return exit.into();
        }
    };
    // The panic itself has been reported by its hook; here it only gets its exit code.
    match panic::catch_unwind(|| arguments.execute()) {
        Ok(Ok(())) => Exit::Success.into(),
        Ok(Err(failure)) => {
            if !failure.is_reader_gone() {
                eprintln!("landmarkd: {failure}");
            }
            failure.exit.into()
        }
        Err(_) => Exit::Bug.into(),
    }
}
