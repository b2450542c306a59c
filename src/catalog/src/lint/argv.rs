//! Programs and arguments: no shell, known built-ins, every placeholder filled and every parameter used.

use std::collections::BTreeSet;

use diagbot_wire::args::BuiltIn;

use super::Faults;
use crate::{
    diagnostic::{Diagnostic, Runtime},
    render::{Piece, pieces},
};

/// Programs that run other programs or text: with one of them an argument could become a command. Shells, programs that are
/// many programs, interpreters, and what starts a command under another identity or elsewhere.
const SHELLS: [&str; 57] = [
    "ash",
    "awk",
    "bash",
    "bun",
    "busybox",
    "chroot",
    "csh",
    "dash",
    "deno",
    "doas",
    "elvish",
    "env",
    "eval",
    "exec",
    "expect",
    "fish",
    "gawk",
    "gosu",
    "groovy",
    "jshell",
    "ksh",
    "lua",
    "luajit",
    "mawk",
    "mksh",
    "nawk",
    "node",
    "nodejs",
    "nsenter",
    "nu",
    "oksh",
    "parallel",
    "perl",
    "php",
    "posh",
    "powershell",
    "pwsh",
    "pypy",
    "python",
    "rbash",
    "ruby",
    "runuser",
    "script",
    "setpriv",
    "sh",
    "ssh",
    "su",
    "su-exec",
    "sudo",
    "tclsh",
    "tcsh",
    "toybox",
    "unshare",
    "watch",
    "xargs",
    "yash",
    "zsh",
];

/// Checks the argv of one diagnostic.
pub(super) fn check(diagnostic: &Diagnostic, faults: &mut Faults) {
    let mut used = BTreeSet::new();
    for (index, argument) in diagnostic.argv.iter().enumerate() {
        let key = format!("argv[{index}]");
        for piece in pieces(argument) {
            match piece {
                Piece::Placeholder(name) if diagnostic.parameters.contains_key(name) => {
                    used.insert(name);
                }
                Piece::Placeholder(name) => {
                    faults.add(
                        &key,
                        format!("nothing fills the placeholder {{{name}}}: declare the parameter"),
                    );
                }
                Piece::Literal(text) if text.contains(['{', '}']) => {
                    faults.add(&key, "has an unpaired brace; braces only mark placeholders");
                }
                Piece::Literal(text) if text.chars().any(|c| c == '"' || c == '\\' || c.is_control()) => {
                    faults.add(&key, "must not hold quotes, backslashes or control characters");
                }
                Piece::Literal(_) => {}
            }
        }
        if let Some(program) = runs_others(argument) {
            faults.add(
                &key,
                format!("`{program}` runs other commands: name the diagnostic's program itself"),
            );
        }
    }
    for unused in diagnostic
        .parameters
        .keys()
        .filter(|name| !used.contains(name.as_str()))
    {
        faults.add(format!("parameters.{unused}"), format!("no argument uses {{{unused}}}"));
    }
    if let Some(program) = diagnostic.argv.first() {
        check_program(diagnostic, program, faults);
    }
}

/// The name of the program that an argument names, if it runs others: `/usr/bin/python3.12` is `python`, and
/// `busybox-static` is `busybox`.
fn runs_others(argument: &str) -> Option<&'static str> {
    let file = argument.rsplit('/').next().unwrap_or(argument);
    let plain = file.trim_end_matches(".static").trim_end_matches("-static");
    let unversioned = plain.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    SHELLS
        .into_iter()
        .find(|shell| [file, plain, unversioned].contains(shell))
}

fn check_program(diagnostic: &Diagnostic, program: &str, faults: &mut Faults) {
    if program.contains('{') {
        faults.add("argv[0]", "the program itself can't be a parameter");
    } else if program.starts_with('@') {
        match BuiltIn::parse(program) {
            Some(BuiltIn::Jvm | BuiltIn::JvmHeapDump) if diagnostic.runtime != Runtime::Jvm => {
                faults.add("runtime", format!("`{program}` needs runtime `jvm`"));
            }
            Some(_) => {}
            None => {
                let known: Vec<_> = BuiltIn::ALL.iter().map(|b| b.as_str()).collect();
                faults.add(
                    "argv[0]",
                    format!("`{program}` is not a built-in report; these are: {}", known.join(", ")),
                );
            }
        }
    } else if diagnostic.image.is_none() {
        faults.add(
            "image",
            format!("`{program}` is not built into the agent: name the image that has it"),
        );
    }
}
