//! Rows about the fence of one cluster: whether its policies are those that this catalog renders and hold this account, and
//! whether the API server refuses what they don't name.

use diagbot_base::telemetry::Chain;
use diagbot_catalog::{
    Catalog,
    policy::{self, CONTAINERS, Fence, RECORDS, STREAMS, installed},
};
use diagbot_cluster::{CallError, Cluster, deadline};
use diagbot_runs::access::own::{self, Right};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::{
    Api, Resource,
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;

use super::{
    CALL, Outcome, Table,
    attempt::{self, Attempt},
};
use crate::{cli::policy::service_account_user, config::Config};

/// What the API server holds under the name of a policy. Absent: there is none.
#[derive(Debug, Default)]
struct Held {
    policy: Option<Value>,
    binding: Option<Value>,
}

/// What that is worth.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// As it is rendered here.
    AsRendered,
    /// There is no policy.
    NoPolicy,
    /// There is a policy that nothing puts into force.
    NoBinding,
    /// In these fields it is another.
    Differs(Vec<String>),
    /// It is about other accounts.
    OtherUsers,
}

/// Who checks.
#[derive(Debug)]
struct Account {
    user: String,
    /// It may do everything: an administrator, whom no fence should hold, and not the bot.
    all_powerful: bool,
}

/// A row for each policy, and one for what was tried; `place`: the namespace to try it in.
pub(super) async fn check(
    config: &Config,
    catalog: &Catalog,
    cluster: &Cluster,
    place: Option<&str>,
    table: &mut Table,
) {
    let title = |what: &str| format!("{}: fence {what}", cluster.name);
    let account = match Account::own(cluster).await {
        Ok(account) => account,
        Err(error) => return table.row(&title("of this account"), Outcome::Fault, &Chain(&error).to_string()),
    };
    // Where no runs are kept there is nothing that the third is about.
    let at_home = cluster.name == config.cluster.name;
    let names = [CONTAINERS, STREAMS].into_iter().chain(at_home.then_some(RECORDS));
    let mut held = Vec::new();
    for name in names {
        held.push((name, Held::read(cluster, name).await));
    }
    let fence = Fence {
        namespace: config.namespace.clone(),
        users: users(
            &config.namespace,
            account.to_be_held(),
            held.iter().filter_map(|(_, held)| held.as_ref().ok()),
        ),
        agent_image: config.agent.image.clone(),
    };
    let command = command(&fence, account.to_be_held(), config.catalog.allow_unpinned_images);
    let rendered = policy::render(catalog, &fence);
    for (name, held) in &held {
        let (outcome, words) = match held {
            Ok(held) => {
                let state = judge(held, &rendered, name, fence.users.contains(&account.user));
                tell(&state, &fence, &account, &command)
            }
            Err(error) if error.is_forbidden() => (
                Outcome::Fault,
                "not allowed to read it (get, by name): apply the roles in deploy/base".to_owned(),
            ),
            Err(error) => (Outcome::Fault, Chain(error).to_string()),
        };
        table.row(&title(name), outcome, &words);
    }
    let (outcome, words) = tell_attempt(attempt::on_some_pod(cluster, config, place).await, &account);
    table.row(&title("in force"), outcome, &words);
}

fn tell_attempt(attempt: Attempt, account: &Account) -> (Outcome, String) {
    match attempt {
        Attempt::Refused(pod) => (
            Outcome::Ok,
            format!("a container that is not in the catalog was refused beside {pod}"),
        ),
        Attempt::Accepted(pod) => (
            Outcome::Fault,
            format!(
                "a container that is not in the catalog would be accepted beside {pod}: the API server is not fencing `{}`; \
                 see the rows above, and try again where they are ok: policies take effect some seconds after they are applied",
                account.user
            ),
        ),
        Attempt::NotTried(why) => (Outcome::Less, format!("not tried: {why}")),
    }
}

impl Account {
    async fn own(cluster: &Cluster) -> Result<Self, CallError> {
        let everything = Right {
            verb: "*",
            group: "*",
            resource: "*",
            subresource: "",
        };
        Ok(Self {
            user: own::user(cluster).await?,
            all_powerful: own::may(cluster, None, everything, None).await?,
        })
    }

    /// The user whom the fence should be about, as far as this account tells.
    fn to_be_held(&self) -> Option<&str> {
        (!self.all_powerful).then_some(&self.user)
    }
}

impl Held {
    async fn read(cluster: &Cluster, name: &str) -> Result<Self, CallError> {
        Ok(Self {
            policy: get::<ValidatingAdmissionPolicy>(cluster, name).await?,
            binding: get::<ValidatingAdmissionPolicyBinding>(cluster, name).await?,
        })
    }
}

/// An object as the API server writes it: a field that this program does not know may narrow it.
async fn get<K: Resource<DynamicType = ()>>(cluster: &Cluster, name: &str) -> Result<Option<Value>, CallError> {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let found = deadline(CALL, api.get_opt(name)).await?;
    Ok(found.map(|object| object.data))
}

/// The accounts that the fence is about: those of the first policy that names some, else ours and the one of `deploy/`.
fn users<'a>(namespace: &str, user: Option<&str>, held: impl Iterator<Item = &'a Held>) -> Vec<String> {
    let mut named = held.filter_map(|held| held.policy.as_ref()).map(installed::users);
    let account = account(namespace);
    named.find(|users| !users.is_empty()).unwrap_or_else(|| {
        let more = user.filter(|user| *user != account).map(str::to_owned);
        std::iter::once(account.clone()).chain(more).collect()
    })
}

/// The service account of `deploy/`.
fn account(namespace: &str) -> String {
    service_account_user(namespace, "diagbot")
}

/// `about_us`: this account is among the users for whom it was rendered.
fn judge(held: &Held, rendered: &[Value], name: &str, about_us: bool) -> State {
    let Some(policy) = &held.policy else {
        return State::NoPolicy;
    };
    let Some(binding) = &held.binding else {
        return State::NoBinding;
    };
    let wanted = rendered.iter().filter(|object| object["metadata"]["name"] == name);
    let differing: Vec<String> = wanted
        .zip([policy, binding])
        .flat_map(|(wanted, installed)| installed::differences(wanted, installed))
        .collect();
    if !differing.is_empty() {
        State::Differs(differing)
    } else if about_us {
        State::AsRendered
    } else {
        State::OtherUsers
    }
}

fn tell(state: &State, fence: &Fence, account: &Account, command: &str) -> (Outcome, String) {
    let words = match state {
        State::AsRendered => {
            let words = format!("as this catalog renders it, for {}", fence.users.join(", "));
            return (Outcome::Ok, words);
        }
        State::NoPolicy => "missing".to_owned(),
        State::NoBinding => "its binding is missing".to_owned(),
        State::Differs(fields) => format!("was rendered from another catalog, or changed ({})", fields.join(", ")),
        State::OtherUsers => format!("does not hold `{}`, but {}", account.user, fence.users.join(", ")),
    };
    if *state == State::OtherUsers && account.all_powerful {
        let words = format!("{words}; this account may do everything: check as the bot, in its pod");
        return (Outcome::Fault, words);
    }
    (Outcome::Fault, format!("{words}: {command}"))
}

/// What puts it right, as a person types it where the catalog is.
fn command(fence: &Fence, user: Option<&str>, unpinned: bool) -> String {
    let mut words = format!("diagbot policy render --agent-image {}", shown(&fence.agent_image));
    if fence.namespace != "diagbot" {
        words = format!("{words} --namespace {}", fence.namespace);
    }
    let account = account(&fence.namespace);
    let more = user.filter(|user| fence.users.iter().all(|known| known != user));
    let users = fence.users.iter().map(String::as_str).chain(more);
    for user in users.filter(|user| *user != account) {
        words = format!("{words} --user {}", shown(user));
    }
    if unpinned {
        words.push_str(" --allow-unpinned-images");
    }
    format!("`{words} | kubectl apply --server-side --force-conflicts -f -`")
}

/// A word that no shell reads as anything else; what is none is left to whoever types the command.
fn shown(word: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@=,+".contains(c);
    if word.chars().all(plain) { word } else { "…" }
}

#[cfg(test)]
mod tests {
    use diagbot_catalog::load::Allowances;
    use serde_json::json;

    use super::*;

    const BOT: &str = "system:serviceaccount:diagbot:diagbot";

    fn fence(users: &[&str]) -> Fence {
        Fence {
            namespace: "diagbot".to_owned(),
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            agent_image: "agent@sha256:0".to_owned(),
        }
    }

    fn rendered(users: &[&str]) -> Vec<Value> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../commands");
        let catalog = Catalog::load(&folder, Allowances::default()).expect("the shipped catalog");
        policy::render(&catalog, &fence(users))
    }

    fn held(objects: &[Value], name: &str) -> Held {
        let mut objects = objects.iter().filter(|o| o["metadata"]["name"] == name).cloned();
        Held {
            policy: objects.next(),
            binding: objects.next(),
        }
    }

    #[test]
    fn each_policy_is_judged_with_its_binding() {
        let wanted = rendered(&[BOT]);
        for name in [CONTAINERS, STREAMS, RECORDS] {
            let judge = |held: &Held| judge(held, &wanted, name, true);
            assert_eq!(judge(&held(&wanted, name)), State::AsRendered, "{name}");
            assert_eq!(judge(&Held::default()), State::NoPolicy);
            let mut changed = held(&wanted, name);
            changed.policy.as_mut().unwrap()["spec"]["failurePolicy"] = json!("Ignore");
            changed.binding.as_mut().unwrap()["spec"]["validationActions"] = json!(["Audit"]);
            let fields = ["failurePolicy", "validationActions"].map(str::to_owned).to_vec();
            assert_eq!(judge(&changed), State::Differs(fields));
            changed.binding = None;
            assert_eq!(judge(&changed), State::NoBinding);
        }
    }

    #[test]
    fn a_fence_around_others_does_not_hold_us() {
        let installed = rendered(&["CN=other", BOT]);
        let all = [CONTAINERS, STREAMS, RECORDS].map(|name| held(&installed, name));
        let users = users("diagbot", Some("CN=us"), all.iter());
        assert_eq!(users, ["CN=other", BOT], "as the installed one says");
        let state = judge(
            &all[0],
            &installed,
            CONTAINERS,
            users.iter().any(|user| user == "CN=us"),
        );
        assert_eq!(state, State::OtherUsers);
        let told = |all_powerful| {
            let user = "CN=us".to_owned();
            tell(
                &state,
                &fence(&["CN=other", BOT]),
                &Account { user, all_powerful },
                "do",
            )
        };
        let words = format!("does not hold `CN=us`, but CN=other, {BOT}");
        assert_eq!(told(false), (Outcome::Fault, format!("{words}: do")));
        // An administrator is told to look elsewhere, never to be fenced in.
        let (outcome, told) = told(true);
        assert_eq!(outcome, Outcome::Fault);
        assert!(told.ends_with("check as the bot, in its pod"), "{told}");
    }

    #[test]
    fn where_there_is_no_fence_it_is_to_be_about_us() {
        let users = |user| users("diagbot", user, std::iter::empty());
        assert_eq!(users(Some(BOT)), [BOT]);
        assert_eq!(users(Some("CN=us")), [BOT, "CN=us"]);
        let admin = Account {
            user: "admin".to_owned(),
            all_powerful: true,
        };
        assert_eq!(users(admin.to_be_held()), [BOT]);
    }

    #[test]
    fn the_command_renders_what_is_wanted_and_holds_no_shell_word() {
        let ending = "| kubectl apply --server-side --force-conflicts -f -`";
        assert_eq!(
            command(&fence(&[BOT]), Some(BOT), false),
            format!("`diagbot policy render --agent-image agent@sha256:0 {ending}")
        );
        assert_eq!(
            command(&fence(&["CN=a", BOT]), Some("$(id)"), true),
            format!(
                "`diagbot policy render --agent-image agent@sha256:0 --user CN=a --user … --allow-unpinned-images {ending}"
            )
        );
        let elsewhere = Fence {
            namespace: "ops".to_owned(),
            ..fence(&[&account("ops")])
        };
        assert_eq!(
            command(&elsewhere, None, false),
            format!("`diagbot policy render --agent-image agent@sha256:0 --namespace ops {ending}")
        );
    }
}
