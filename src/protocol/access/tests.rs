//! Lists as files, with what each says of peers; and random ones against an evaluator that tries
//! their rules one by one.

use std::net::IpAddr;
use std::sync::Arc;

use fastrand::Rng;

use super::*;

const CERTIFICATES: Conditions = Conditions { asks_for_certificates: true, has_tokens: true };

fn list(text: &str) -> Arc<AccessList> {
    Arc::new(parse(text, CERTIFICATES).unwrap_or_else(|mistake| panic!("{mistake}\n{text}")))
}

/// The answer of a list in a word: `+` or `-`, and the rule counted from 1.
fn answer(list: &Arc<AccessList>, peer: &str, right: Right, scope: Scope<'_>) -> String {
    let verdict = Permissions::of(list, &peer.parse().unwrap()).may(right, scope);
    let rule = verdict.rule.map_or(String::new(), |rule| (rule + 1).to_string());
    format!("{}{rule}", if verdict.is_allowed { '+' } else { '-' })
}

#[test]
fn the_first_rule_that_matches_decides() {
    let list = list(
        r#"
        [[rule]]
        who = { network = ["127.0.0.0/8", "::1"] }
        may = ["submit", "work", "observe", "admin"]
        [[rule]]
        who = { certificate = ["cn:web-*", "dns:*.web.example.com"], network = ["10.0.0.0/8"] }
        may = ["submit"]
        functions = ["resize", "mail-*"]
        [[rule]]
        who = { network = ["::ffff:10.0.0.0/104"] }
        may-not = ["observe", "admin"]
        functions = ["secret"]
        [[rule]]
        who = { user = ["www-data", 33], listener = ["unix:/run/g.sock"] }
        may = ["observe"]
        [[rule]]
        who = { network = ["10.1.0.0/16"] }
        may = ["admin"]
        [[rule]]
        who = {}
        may = ["work"]
        functions = ["public*"]
        [[rule]]
        who = { token = ["ops", "deploy"], network = ["10.0.0.0/8"] }
        may = ["submit"]
        "#,
    );
    let rules: Vec<usize> = list.rules().iter().map(|rule| rule.line).collect();
    assert_eq!(rules, [2, 5, 9, 13, 16, 19, 23], "the lines of the file");
    let f = |name: &'static str| Scope::Function(name.as_bytes());
    let all = Scope::AllFunctions;
    use Right as R;
    for (peer, right, scope, expected) in [
        ("127.3.4.5", R::Admin, all, "+1"),
        ("::1", R::Submit, f("x"), "+1"),
        ("::2", R::Submit, f("x"), "-"),
        ("cn:web-1,10.2.0.1", R::Submit, f("mail-x"), "+2"),
        ("dns:a.web.example.com,10.2.0.1", R::Submit, f("resize"), "+2"),
        ("cn:web-1,10.2.0.1", R::Submit, f("other"), "-"),
        ("cn:web-1,11.2.0.1", R::Submit, f("resize"), "-"),
        ("cn:app-1,10.2.0.1", R::Submit, f("resize"), "-"),
        ("10.1.0.1", R::Observe, f("secret"), "-3"),
        ("::ffff:10.1.0.1", R::Observe, f("secret"), "-3"),
        ("10.1.0.1", R::Observe, f("resize"), "+5"),
        ("10.1.0.1", R::Admin, f("resize"), "+5"),
        ("10.1.0.1", R::Observe, all, "-3"),
        ("10.1.0.1", R::Submit, f("resize"), "-"),
        ("user:33,listener:unix:/run/g.sock", R::Observe, all, "+4"),
        ("user:www-data,listener:unix:/run/g.sock", R::Observe, f("x"), "+4"),
        ("user:www-data,listener:unix:/run/h.sock", R::Observe, f("x"), "-"),
        ("user:34,listener:unix:/run/g.sock", R::Observe, f("x"), "-"),
        ("192.0.2.1", R::Work, f("public"), "+6"),
        ("192.0.2.1", R::Work, all, "-"),
        ("token:deploy,10.2.0.1", R::Submit, f("x"), "+7"),
        ("token:deploy,192.0.2.1", R::Submit, f("x"), "-"),
        ("token:other,10.2.0.1", R::Submit, f("x"), "-"),
    ] {
        assert_eq!(answer(&list, peer, right, scope), expected, "{peer} {right} {scope:?}");
    }
}

#[test]
fn a_glob_that_matches_all_names_is_as_good_as_none() {
    let list = list("[[rule]]\nwho = {}\nmay = [\"observe\"]\nfunctions = [\"x\", \"*\"]\n");
    assert_eq!(answer(&list, "10.0.0.1", Right::Observe, Scope::AllFunctions), "+1");
}

#[test]
fn the_starting_list_allows_this_host_everything_and_no_other_peer_anything() {
    let list = Arc::new(parse(STARTING_LIST, Conditions::default()).unwrap());
    for right in Right::ALL {
        for scope in [Scope::AllFunctions, Scope::Function(b"any")] {
            for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert_eq!(answer(&list, peer, right, scope), "+1", "{peer} {right}");
            }
            for peer in ["10.0.0.1", "fd00::1", "cn:x", "user:0"] {
                assert_eq!(answer(&list, peer, right, scope), "-", "{peer} {right}");
            }
        }
    }
    // What stands in comments is a list, too.
    let examples = STARTING_LIST.lines().filter_map(|line| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let is_code = ["[[rule]]", "who = ", "may = ", "may-not = ", "functions = "];
        is_code.iter().any(|start| line.starts_with(start)).then_some(line)
    });
    let examples: Vec<&str> = examples.filter(|line| !line.contains("{} stands")).collect();
    let rules = parse(&examples.join("\n"), Conditions::default()).unwrap();
    assert_eq!(rules.rules().len(), 5);
}

#[test]
fn mistakes_name_their_line_and_what_was_meant() {
    let allow = "who = {}\nmay = [\"submit\"]\n";
    for (text, expected) in [
        (
            "[[rule]]\nwho = {}\nmay = [\"sumbit\"]",
            "3: unknown right \"sumbit\": submit, work, \
          observe, admin",
        ),
        ("\n\n[[rules]]\nwho = {}", "3: unknown key \"rules\": did you mean rule?"),
        ("[[access]]", "1: unknown key \"access\": rule has rule"),
        ("rule = 3", "1: write rules as tables: [[rule]]"),
        ("rule = [3]", "1: write rules as tables: [[rule]]"),
        (
            "[[rule]]\nwho = {}\nmay = [\"work\"]\nfunction = [\"x\"]",
            "4: unknown key \"function\": did you mean functions?",
        ),
        (
            "[[rule]]\nwho = {}\nmay_not = [\"work\"]",
            "3: unknown key \"may_not\": did you mean may-not?",
        ),
        (
            "[[rule]]\nwho = {}\nallow = 1",
            "3: unknown key \"allow\": a rule has who, may, may-not, functions",
        ),
        (
            "[[rule]]\nwho = { tokne = [\"ops\"] }\nmay = [\"work\"]",
            "2: unknown key \"tokne\": did you mean token?",
        ),
        (
            "[[rule]]\nwho = { place = [\"ops\"] }\nmay = [\"work\"]",
            "2: unknown key \"place\": who has network, certificate, user, listener, token",
        ),
        (
            "[[rule]]\nwho = { token = [] }\nmay = [\"work\"]",
            "2: token has no value: write token = [\"ops\"], or leave it out",
        ),
        (
            "[[rule]]\nwho = { networks = [\"::1\"] }",
            "2: unknown key \"networks\": did you mean \
          network?",
        ),
        (
            "[[rule]]\nwho = {}\nmay = [\"work\"]\nmay-not = [\"submit\"]",
            "4: a rule has either may or may-not: make it two rules",
        ),
        (
            "# x\n[[rule]]\nwho = {}",
            "2: the rule has neither may nor may-not: may = [\"submit\"] \
          allows, for instance",
        ),
        ("[[rule]]\nmay = [\"work\"]", "1: the rule has no who: who = {} stands for all peers"),
        (
            "[[rule]]\nwho = 3",
            "2: who is a table: write who = { network = [\"10.0.0.0/8\"] }, or \
          {} for all peers",
        ),
        (
            "[[rule]]\nwho = {}\nmay = []",
            "3: may has no value: write may = [\"submit\"], or leave \
          it out",
        ),
        ("[[rule]]\nwho = {}\nmay = \"work\"", "3: may is a list: write may = [\"submit\"]"),
        ("[[rule]]\nwho = {}\nmay = [1]", "3: write each value of may in quotes"),
        (
            "[[rule]]\nwho = { network = [\n\"10.0.0.0/33\"] }",
            "3: \"10.0.0.0/33\" is no network: write it like 10.0.0.0/8 or fd00::/8",
        ),
        (
            "[[rule]]\nwho = { network = [\"10.1.0.0/8\"] }",
            "2: \"10.1.0.0/8\" has bits behind its prefix: write 10.0.0.0/8 for the network, or \
          10.1.0.0 for the address",
        ),
        (
            "[[rule]]\nwho = { certificate = [\"web\"] }",
            "2: \"web\" begins with none of cn:, dns:, \
          uri: and sha256:, which say what it is",
        ),
        (
            "[[rule]]\nwho = { certificate = [\"sha256:9f\"] }",
            "2: \"9f\" is no SHA-256: 64 \
          hexadecimal digits, as openssl x509 -fingerprint -sha256 prints them",
        ),
        ("[[rule]]\nwho = { user = [-1] }", "2: -1 is no user: user ids are 0 to 4294967295"),
        ("[[rule]]\nwho = { user = [true] }", "2: a user is a name in quotes or a number"),
        (
            "[[rule]]\nwho = {}\nmay = [\"work\"]\nfunctions = ['a\\']",
            "4: \"a\\\\\" ends with a backslash: write \\\\ for a backslash",
        ),
        ("[[rule]]\nwho = {", "2: this isn't TOML: "),
        (&format!("[[rule]]\n{allow}who = {{}}"), "4: this isn't TOML: duplicate key"),
        (
            &format!("[[rule]]\n{allow}functions = [{}]", "\"x\",".repeat(65)),
            "1: the rule has 65 patterns, at most 64: make it several",
        ),
        (
            &format!("[[rule]]\n{allow}").repeat(1001),
            "3001: a list has at most 1000 rules: merge \
          some",
        ),
        (&"# \n".repeat(400_000), "1: the list is larger than 1048576 bytes: shorten it"),
    ] {
        let mistake = parse(text, CERTIFICATES).unwrap_err().to_string();
        assert!(mistake.starts_with(expected), "{expected}\n{mistake}");
    }
    let certificate = "[[rule]]\n\nwho = { certificate = [\"cn:x\"] }\nmay = [\"work\"]";
    assert_eq!(
        parse(certificate, Conditions::default()).unwrap_err().to_string(),
        "3: no listener asks peers for certificates, so the rule would match none: set \
         --ssl-client-certificates, or leave the key certificate out"
    );
    assert!(parse(certificate, CERTIFICATES).is_ok());
    assert_eq!(parse("", CERTIFICATES).unwrap().rules(), [], "it refuses everything");
}

#[test]
fn refusals_have_the_words_of_either_protocol() {
    let denial = Denial { peer: "cn:web1", right: Right::Admin, function: Some(b"secret") };
    assert_eq!(denial.text(), b"cn:web1 may not admin secret");
    assert_eq!(denial.line(), b"ERR PERMISSION_DENIED cn:web1+may+not+admin+secret\r\n");
    let denial = Denial { function: None, ..denial };
    assert_eq!(denial.line(), b"ERR PERMISSION_DENIED cn:web1+may+not+admin\r\n");
}

/// A rule of a random list, by what the file says.
struct Sample {
    network: Vec<&'static str>,
    common: Vec<&'static str>,
    allows: bool,
    rights: Vec<Right>,
    functions: Vec<&'static str>,
}

fn some<T: Copy>(rng: &mut Rng, values: &[T], least: usize) -> Vec<T> {
    let count = rng.usize(least..=2);
    (0..count).map(|_| values[rng.usize(0..values.len())]).collect()
}

impl Sample {
    fn random(rng: &mut Rng) -> Self {
        Self {
            network: some(rng, &["10.0.0.0/8", "10.1.0.0/16", "10.1.0.7/32", "0.0.0.0/0"], 0),
            common: some(rng, &["web*", "web-?", "*", "app"], 0),
            allows: rng.u8(0..4) > 0,
            rights: some(rng, &Right::ALL, 1),
            functions: some(rng, &["f", "f?", "g*", "*g", "*", "?"], 0),
        }
    }

    fn toml(&self) -> String {
        let mut who = Vec::new();
        if !self.network.is_empty() {
            who.push(format!("network = {:?}", self.network));
        }
        if !self.common.is_empty() {
            let common: Vec<_> = self.common.iter().map(|name| format!("cn:{name}")).collect();
            who.push(format!("certificate = {common:?}"));
        }
        let key = if self.allows { "may" } else { "may-not" };
        let rights: Vec<&str> = self.rights.iter().map(|right| right.name()).collect();
        let functions = match &self.functions[..] {
            [] => String::new(),
            globs => format!("functions = {globs:?}\n"),
        };
        format!("[[rule]]\nwho = {{ {} }}\n{key} = {rights:?}\n{functions}", who.join(", "))
    }
}

fn glob_matches(glob: &[u8], name: &[u8]) -> bool {
    match (glob, name) {
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| glob_matches(rest, &name[at..])),
        ([first, rest @ ..], [byte, others @ ..]) => {
            (*first == b'?' || first == byte) && glob_matches(rest, others)
        }
        _ => glob.is_empty() && name.is_empty(),
    }
}

/// The number of the rule that decides, and whether it allows.
fn evaluate(
    rules: &[Sample],
    (address, common): (IpAddr, Option<&str>),
    right: Right,
    function: &str,
) -> (bool, Option<usize>) {
    let matches = |glob: &&str, name: &str| glob_matches(glob.as_bytes(), name.as_bytes());
    let found = rules.iter().position(|rule| {
        let Sample { network, common: globs, allows, rights, functions } = rule;
        let within = |net: &&str| net.parse::<ipnet::IpNet>().unwrap().contains(&address);
        (network.is_empty() || network.iter().any(within))
            && (globs.is_empty() || globs.iter().any(|it| common.is_some_and(|cn| matches(it, cn))))
            && (rights.contains(&right)
                || *allows && right == Right::Observe && rights.contains(&Right::Admin))
            && (functions.is_empty() || functions.iter().any(|it| matches(it, function)))
    });
    (found.is_some_and(|rule| rules[rule].allows), found)
}

#[test]
fn random_lists_say_what_their_rules_say_one_by_one() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..2000 {
        let samples: Vec<Sample> = (0..rng.usize(0..6)).map(|_| Sample::random(&mut rng)).collect();
        let text: String = samples.iter().map(Sample::toml).collect();
        let list = list(&text);
        for _ in 0..10 {
            let address = ["10.1.0.7", "10.1.2.3", "10.9.0.1", "192.0.2.1"][rng.usize(0..4)];
            let common = [None, Some("web-1"), Some("web"), Some("app")][rng.usize(0..4)];
            let name = common.map(|name| format!(",cn:{name}")).unwrap_or_default();
            let words = format!("{address}{name}");
            let permissions = Permissions::of(&list, &words.parse().unwrap());
            for right in Right::ALL {
                let function = ["f", "g", "ff", "gfg", "h", ""][rng.usize(0..6)];
                let verdict = permissions.may(right, Scope::Function(function.as_bytes()));
                let address = address.parse().unwrap();
                let expected = evaluate(&samples, (address, common), right, function);
                let found = (verdict.is_allowed, verdict.rule);
                assert_eq!(found, expected, "{words} {right} {function:?}\n{text}");
                if permissions.may(right, Scope::AllFunctions).is_allowed {
                    assert!(verdict.is_allowed, "{words} {right} {function:?}\n{text}");
                }
            }
        }
    }
}

#[test]
fn the_lists_in_the_manual_are_some() {
    let manual = include_str!("../../../docs/security.md");
    let blocks = manual.split("```toml\n").skip(1);
    let texts: Vec<&str> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    assert!(texts.iter().all(|text| parse(text, CERTIFICATES).is_ok()));
    let text = texts.iter().find(|text| text.contains("billing")).unwrap();
    let list = Arc::new(parse(text, Conditions::default()).unwrap());
    for (peer, right, function, expected) in [
        ("10.1.0.7", Right::Work, "billing", "+3"),
        ("10.2.0.7", Right::Work, "billing", "-2"),
        ("10.2.0.7", Right::Submit, "billing", "+3"),
        ("10.3.0.7", Right::Observe, "x", "-"),
    ] {
        let scope = Scope::Function(function.as_bytes());
        assert_eq!(answer(&list, peer, right, scope), expected, "{peer} {right} {function}");
    }
}
