//! `beside`: a neighbour for others to look at. It takes a process name, serves one port on its loopback only, looks at what it is
//! told to, and then answers HTTP on another port, so that who answers has looked already.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use crate::Failure;
use crate::look::{Item, look};
use crate::serve::forever;

/// Longest name of a process in bytes; the kernel keeps no more.
const NAME_MAX: usize = 15;

pub(crate) fn run(name: &str, hidden: u16, open: u16, items: &[Item]) -> Result<ExitCode, Failure> {
    let fits =
        !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        return Err(format!("{name:?}: a name has 1 to {NAME_MAX} plain characters").into());
    }
    let name = std::ffi::CString::new(name)?;
    rustix::thread::set_name(&name)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, hidden))?;
    std::thread::spawn(move || {
        // A connection is all that anybody looks for.
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    look(items, &mut io::stdout())?;
    forever(open, |_, to| to.plain(200, &[], "here\n"))
}
