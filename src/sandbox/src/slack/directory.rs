//! Who and what is in the workspace: users, channels, user groups, and how the Web API describes them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The workspace the app is installed in.
pub(super) const TEAM: &str = "T0DIAG0001";
/// Another workspace, connected over Slack Connect.
pub(super) const OTHER_TEAM: &str = "T0OTHER001";
/// A further workspace of the same organisation (Enterprise Grid).
const GRID_TEAM: &str = "T0GRID0001";
/// Domain of the workspace.
pub(super) const TEAM_DOMAIN: &str = "sandbox";
/// The app.
pub(super) const APP: &str = "A0DIAG0001";
/// The app's bot, as `bot_id` of messages.
pub(super) const BOT: &str = "B0DIAG0001";
/// The app's bot, as a user.
pub(super) const BOT_USER: &str = "U0DIAG0001";
/// Slack's own voice (for `operation_timeout`).
pub(super) const SLACKBOT: &str = "USLACKBOT";
/// Creation time that every fixture carries (2025-01-01).
const CREATED: i64 = 1_735_689_600;

/// A person or a bot.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) real_name: String,
    pub(super) team: String,
    pub(super) restricted: bool,
    pub(super) bot: bool,
    pub(super) deleted: bool,
    /// The address in the profile, unless it is `<name>@example.com`.
    pub(super) address: Option<String>,
    /// The person has proved that the address is theirs.
    pub(super) confirmed: bool,
}

impl User {
    fn person(id: &str, name: &str, real_name: &str) -> User {
        User {
            id: id.to_owned(),
            name: name.to_owned(),
            real_name: real_name.to_owned(),
            team: TEAM.to_owned(),
            restricted: false,
            bot: false,
            deleted: false,
            address: None,
            confirmed: true,
        }
    }

    /// From another organisation, met in shared channels only.
    pub(super) fn stranger(&self) -> bool {
        self.team != TEAM && self.team != GRID_TEAM
    }

    /// Not of this workspace.
    pub(super) fn foreign(&self) -> bool {
        self.team != TEAM
    }

    /// The address in the profile; only people of the own organisation show one.
    fn email(&self) -> Option<String> {
        let address = || {
            self.address
                .clone()
                .unwrap_or_else(|| format!("{}@example.com", self.name))
        };
        (!self.bot && !self.stranger()).then(address)
    }

    /// What an administrator of the workspace, or the person, changes about the account: `{"team": "grid"}` moves it to
    /// another workspace of the same organisation.
    pub(super) fn change(&mut self, body: &Value) {
        let flag = |name: &str, now: bool| body[name].as_bool().unwrap_or(now);
        self.restricted = flag("restricted", self.restricted);
        self.bot = flag("bot", self.bot);
        self.deleted = flag("deleted", self.deleted);
        self.confirmed = flag("confirmed", self.confirmed);
        if body["team"] == "grid" {
            GRID_TEAM.clone_into(&mut self.team);
        }
        if let Some(address) = body["email"].as_str() {
            self.address = Some(address.to_owned());
        }
        if let Some(name) = body["name"].as_str() {
            name.clone_into(&mut self.name);
        }
    }

    /// As `users.info` shows it; the e-mail needs its own scope.
    pub(super) fn view(&self, with_email: bool) -> Value {
        let mut profile = json!({
            "real_name": self.real_name, "real_name_normalized": self.real_name,
            "display_name": self.name, "display_name_normalized": self.name, "team": self.team,
        });
        if let (true, Some(email)) = (with_email, self.email()) {
            profile["email"] = Value::String(email);
        }
        json!({
            "id": self.id, "team_id": self.team, "name": self.name, "real_name": self.real_name, "deleted": self.deleted,
            "tz": "Etc/UTC", "tz_label": "UTC", "tz_offset": 0, "profile": profile, "is_admin": false, "is_owner": false,
            "is_primary_owner": false, "is_restricted": self.restricted, "is_ultra_restricted": false, "is_bot": self.bot,
            "is_stranger": self.stranger(), "is_app_user": false, "updated": CREATED,
            "is_email_confirmed": !self.bot && self.confirmed,
        })
    }
}

/// What kind of conversation a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelKind {
    Public,
    Private,
    Direct,
}

/// A conversation.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: ChannelKind,
    pub(super) archived: bool,
    /// Shared with [`OTHER_TEAM`] over Slack Connect.
    pub(super) external: bool,
    pub(super) members: BTreeSet<String>,
}

impl Channel {
    fn new(id: &str, name: &str, kind: ChannelKind, members: &[&str]) -> Channel {
        Channel {
            id: id.to_owned(),
            name: name.to_owned(),
            kind,
            archived: false,
            external: false,
            members: members.iter().map(|member| (*member).to_owned()).collect(),
        }
    }

    /// Whether this user is in it.
    pub(super) fn has(&self, user: &str) -> bool {
        self.members.contains(user)
    }

    /// As `conversations.info` shows it to the bot; the number of members only where it is asked for.
    pub(super) fn info(&self, with_members: bool) -> Value {
        let mut view = self.view();
        if let (false, Some(fields)) = (with_members, view.as_object_mut()) {
            fields.remove("num_members");
        }
        view
    }

    /// As `conversations.list` shows it to the bot.
    pub(super) fn view(&self) -> Value {
        let direct = self.kind == ChannelKind::Direct;
        let mut view = json!({
            "id": self.id, "created": CREATED, "is_archived": self.archived, "is_im": direct, "is_mpim": false,
            "is_channel": self.kind == ChannelKind::Public, "is_group": self.kind == ChannelKind::Private,
            "is_private": self.kind != ChannelKind::Public, "is_general": false, "is_shared": self.external,
            "is_ext_shared": self.external, "is_org_shared": false, "is_pending_ext_shared": false,
            "context_team_id": TEAM, "unlinked": 0, "updated": CREATED * 1000,
            "connected_team_ids": if self.external { vec![OTHER_TEAM] } else { vec![] },
            "shared_team_ids": if self.external { vec![TEAM, OTHER_TEAM] } else { vec![TEAM] },
        });
        if direct {
            let other = self.members.iter().find(|member| *member != BOT_USER);
            view["user"] = json!(other);
        } else {
            view["name"] = json!(self.name);
            view["name_normalized"] = json!(self.name);
            view["creator"] = json!("U0ADA00001");
            view["is_member"] = json!(self.has(BOT_USER));
            view["num_members"] = json!(self.members.len());
            view["topic"] = json!({"value": "", "creator": "", "last_set": 0});
            view["purpose"] = json!({"value": "", "creator": "", "last_set": 0});
        }
        view
    }
}

/// A user group such as `@sre`.
#[derive(Clone, Debug)]
pub(super) struct UserGroup {
    pub(super) id: String,
    pub(super) handle: String,
    pub(super) members: Vec<String>,
}

impl UserGroup {
    /// As `usergroups.list` shows it.
    pub(super) fn view(&self, with_users: bool) -> Value {
        let mut view = json!({
            "id": self.id, "team_id": TEAM, "is_usergroup": true, "is_subteam": true, "name": self.handle,
            "description": "", "handle": self.handle, "is_external": false, "date_create": CREATED, "date_update": CREATED,
            "date_delete": 0, "auto_type": null, "auto_provision": false, "enterprise_subteam_id": "",
            "created_by": "U0ADA00001", "updated_by": "U0ADA00001", "deleted_by": null,
            "prefs": {"channels": [], "groups": []}, "user_count": self.members.len(),
        });
        if with_users {
            view["users"] = json!(self.members);
        }
        view
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) users: Vec<User>,
    pub(super) channels: Vec<Channel>,
    pub(super) groups: Vec<UserGroup>,
}

impl Directory {
    /// The fixed workspace that every sandbox starts with.
    pub(super) fn fixture(bot_name: &str) -> Directory {
        let (ada, grace, linus, gus, sam) = ("U0ADA00001", "U0GRACE001", "U0LINUS001", "U0GUS00001", "U0SAM00001");
        let users = vec![
            User::person(ada, "ada", "Ada Lovelace"),
            User::person(grace, "grace", "Grace Hopper"),
            User::person(linus, "linus", "Linus Torvalds"),
            User {
                restricted: true,
                ..User::person(gus, "gus", "Gus Guest")
            },
            User {
                team: OTHER_TEAM.to_owned(),
                ..User::person(sam, "sam", "Sam Stranger")
            },
            User {
                bot: true,
                ..User::person(BOT_USER, bot_name, "diag")
            },
            User {
                bot: true,
                ..User::person(SLACKBOT, "slackbot", "Slackbot")
            },
        ];
        let (public, private) = (ChannelKind::Public, ChannelKind::Private);
        let channels = vec![
            Channel::new("C0INCIDENT", "incidents", public, &[ada, grace, linus, gus, BOT_USER]),
            Channel::new("C0SHOPONCL", "shop-oncall", public, &[ada, grace, linus, BOT_USER]),
            Channel::new("C0RANDOM01", "random", public, &[ada, grace, linus]),
            Channel::new("C0WARROOM1", "war-room", private, &[ada, grace, BOT_USER]),
            Channel::new("C0SECRETS1", "secrets", private, &[ada]),
            Channel {
                external: true,
                ..Channel::new("C0PARTNERS", "partners", public, &[ada, grace, sam, BOT_USER])
            },
            Channel {
                archived: true,
                ..Channel::new("C0ARCHIVED", "old-incidents", public, &[ada, grace, BOT_USER])
            },
        ];
        let group = |id: &str, handle: &str, members: &[&str]| UserGroup {
            id: id.to_owned(),
            handle: handle.to_owned(),
            members: members.iter().map(|member| (*member).to_owned()).collect(),
        };
        let groups = vec![
            group("S0SRE00001", "sre", &[ada]),
            group("S0ONCALL01", "oncall", &[ada, grace]),
        ];
        Directory {
            users,
            channels,
            groups,
        }
    }

    /// The same with more people and channels, as many as are wanted; each of them is in each of these channels.
    pub(super) fn with_crowd(mut self, people: usize, rooms: usize) -> Directory {
        let ids: Vec<String> = (0..people).map(|n| format!("U0CROWD{n:03}")).collect();
        let names = (0..people).map(|n| format!("p{n:03}"));
        self.users
            .extend(ids.iter().zip(names).map(|(id, name)| User::person(id, &name, &name)));
        let members: Vec<&str> = ids.iter().map(String::as_str).chain([BOT_USER]).collect();
        self.channels.extend((0..rooms).map(|n| {
            let (id, name) = (format!("C0ROOM{n:04}"), format!("room-{n:02}"));
            Channel::new(&id, &name, ChannelKind::Public, &members)
        }));
        self
    }

    /// A user by id or name.
    pub(super) fn user(&self, key: &str) -> Option<&User> {
        let key = key.strip_prefix('@').unwrap_or(key);
        self.users.iter().find(|user| user.id == key || user.name == key)
    }

    /// The same, to change it.
    pub(super) fn user_mut(&mut self, key: &str) -> Option<&mut User> {
        let id = self.user(key)?.id.clone();
        self.users.iter_mut().find(|user| user.id == id)
    }

    /// A user by the address in the profile.
    pub(super) fn user_by_email(&self, email: &str) -> Option<&User> {
        self.users
            .iter()
            .find(|user| user.email().is_some_and(|own| own.eq_ignore_ascii_case(email)))
    }

    /// A channel by id or by name (with or without `#`).
    pub(super) fn channel(&self, key: &str) -> Option<&Channel> {
        let key = key.strip_prefix('#').unwrap_or(key);
        self.channels
            .iter()
            .find(|channel| channel.id == key || channel.name == key)
    }

    /// The same, to change it.
    pub(super) fn channel_mut(&mut self, key: &str) -> Option<&mut Channel> {
        let key = key.strip_prefix('#').unwrap_or(key);
        self.channels
            .iter_mut()
            .find(|channel| channel.id == key || channel.name == key)
    }

    /// The direct conversation of a user with the bot, opened if it was not. Its name is `@` and the user's.
    pub(super) fn direct(&mut self, user: &str) -> Option<String> {
        let user = self.user(user)?.clone();
        let name = format!("@{}", user.name);
        if let Some(open) = self.channels.iter().find(|channel| channel.name == name) {
            return Some(open.id.clone());
        }
        let id = format!("D{}", &user.id[1..]);
        self.channels
            .push(Channel::new(&id, &name, ChannelKind::Direct, &[&user.id, BOT_USER]));
        Some(id)
    }
}
