//! Failpoints: where a test has the process die. Owns their names and the death; knows no action.
//!
//! Every action passes [`around`], which stands before it and after it; a record that an action writes passes
//! [`unrecorded`], which stands between what the world has seen and what is known of it. Names come from the enum of
//! actions itself, through [`action_names!`], so that no action can be without them.
//!
//! # Design notes
//! Only with the feature `failpoints`, which the sandbox and the tests switch on and no release does: without it nothing is
//! asked, read or named. With it a file is looked at, if the environment names one in `DIAGBOT_FAILPOINT_FILE`:
//! `<name> <n>` there makes the process abort at the n-th time (1 unless given) it comes by that name. The file is removed
//! before, so that the next start lives.

use std::future::Future;

use futures::future::BoxFuture;

/// Gives the variants of an enum their names: `name()`, and with the feature `NAMES`, all of them. A variant without a name
/// does not compile.
#[macro_export]
macro_rules! action_names {
    ($action:ident, { $($variant:ident: $name:literal,)+ }) => {
        impl $action {
            /// Names of all actions.
            #[cfg(feature = "failpoints")]
            pub const NAMES: &[&str] = &[$($name),+];

            /// The action's name among all actions of the bot.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)+
                }
            }
        }
    };
}
pub use action_names;

/// Where, within an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg(feature = "failpoints")]
pub enum Moment {
    /// Nothing was done.
    Before,
    /// What the action records is about to be written.
    Unrecorded,
    /// It was done; the process does not know yet.
    After,
}

#[cfg(feature = "failpoints")]
impl Moment {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::Unrecorded, Self::After];

    /// As it stands in a failpoint's name: `<action>:<moment>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Unrecorded => "unrecorded",
            Self::After => "after",
        }
    }
}

/// Does an action between its failpoints.
pub fn around<'a, T: Send, E: Send>(
    action: &'static str,
    act: impl Future<Output = Result<T, E>> + Send + 'a,
) -> BoxFuture<'a, Result<T, E>> {
    #[cfg(feature = "failpoints")]
    let act = async move {
        armed::hit(action, Moment::Before);
        let done = armed::ACTION.scope(action, act).await;
        if done.is_ok() {
            armed::hit(action, Moment::After);
        }
        done
    };
    #[cfg(not(feature = "failpoints"))]
    tracing::trace!(action, "an action begins");
    Box::pin(act)
}

/// The action under way, if any, is about to be recorded.
pub fn unrecorded() {
    #[cfg(feature = "failpoints")]
    armed::ACTION
        .try_with(|action| armed::hit(action, Moment::Unrecorded))
        .ok();
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::{fs, path::PathBuf, sync::LazyLock};

    use super::Moment;

    /// The file that arms a failpoint.
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("DIAGBOT_FAILPOINT_FILE").map(PathBuf::from));

    tokio::task_local! {
        /// The action that this task performs.
        pub(super) static ACTION: &'static str;
    }

    /// Dies here if told so.
    pub(super) fn hit(action: &str, moment: Moment) {
        let Some(file) = FILE.as_deref() else { return };
        let Ok(text) = fs::read_to_string(file) else { return };
        let (name, times) = text.trim().split_once(' ').unwrap_or((text.trim(), "1"));
        if name.split_once(':') != Some((action, moment.as_str())) {
            return;
        }
        let times: u32 = times.parse().unwrap_or(1);
        if times > 1 {
            fs::write(file, format!("{name} {}", times - 1)).ok();
            return;
        }
        // Whoever can't remove it would die at every start.
        if fs::remove_file(file).is_ok() {
            std::process::abort();
        }
    }
}
