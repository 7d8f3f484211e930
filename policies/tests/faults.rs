//! What people read when a policy is wrong. Texts are compared in full: they are the interface here.

use std::fs;

use partita_policy::{PolicyFault, PolicySet};

/// The faults of one file, without the line that counts them.
#[track_caller]
fn faults(text: &str) -> Vec<String> {
    let errors = PolicySet::parse(&[("a.toml", text)]).expect_err("the policy was accepted");
    errors.faults().iter().map(PolicyFault::to_string).collect()
}

#[track_caller]
fn assert_fault(text: &str, expected: &str) {
    assert_eq!(faults(text), [expected]);
}

#[test]
fn a_typo_is_named_with_the_key_that_is_meant() {
    assert_fault(
        "[tenant.acme.defaults]\nmemroy = \"1GiB\"\n",
        "a.toml:2:1: unknown key \"memroy\" in [tenant.acme.defaults]; did you mean \"memory\"? \
         known keys: cpu_time, log, memory, output, wall_time",
    );
    assert_fault(
        "[tenants.acme]\n",
        "a.toml:1:2: unknown key \"tenants\" at the top; did you mean \"tenant\"? known keys: tenant",
    );
}

#[test]
fn a_key_like_no_other_gets_the_list_only() {
    assert_fault(
        "[tenant.acme]\n  frobnicate = true\n",
        "a.toml:2:3: unknown key \"frobnicate\" in [tenant.acme]; known keys: borrow, cohort, dataset, \
         defaults, guaranteed, lend, maxima, minimum_isolation, quota, retention, token_lifetime, unrunnable_after, \
         weight",
    );
}

#[test]
fn wrong_units_say_which_are_right() {
    assert_fault(
        "[tenant.acme.quota]\nstored = \"512MB\"\n",
        "a.toml:2:10: tenant.acme.quota.stored: \"512MB\" is not a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB)",
    );
    assert_fault(
        "[tenant.acme.quota]\nstored = \"512\"\n",
        "a.toml:2:10: tenant.acme.quota.stored: \"512\" is not a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB)",
    );
    assert_fault(
        "[tenant.acme.maxima]\nwall_time = \"2 weeks\"\n",
        "a.toml:2:13: tenant.acme.maxima.wall_time: \"2 weeks\" is not a time such as \"10m\" (us, ms, s, m, h, d)",
    );
    assert_fault(
        "[tenant.acme]\nminimum_isolation = \"strong\"\n",
        "a.toml:2:21: tenant.acme.minimum_isolation: \"strong\" is not one of \"process\", \"seccomp\", \"full\"",
    );
}

#[test]
fn wrong_types_say_what_was_found() {
    assert_fault(
        "[tenant.acme.quota]\nstored = 512\n",
        "a.toml:2:10: tenant.acme.quota.stored: expected a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB), found an integer",
    );
    assert_fault(
        "[tenant.acme]\nweight = 1.5\n",
        "a.toml:2:10: tenant.acme.weight: expected a whole number from 0 to 18446744073709551615, found a float",
    );
    assert_fault(
        "[tenant.acme.quota]\ncpu = 1.2345\n",
        "a.toml:2:7: tenant.acme.quota.cpu: \"1.2345\" is not a number of cores such as 2.5, with at most three decimals",
    );
    assert_fault("tenant = 1\n", "a.toml:1:10: tenant: expected a table, found an integer");
    assert_fault("[tenant]\nacme = true\n", "a.toml:2:8: tenant.acme: expected a table, found a boolean");
    assert_fault(
        "[tenant.acme]\ndataset = {}\n",
        "a.toml:2:11: tenant.acme.dataset: expected an array of tables, found a table",
    );
    assert_fault(
        "[[tenant.acme.dataset]]\nname = \"d\"\nlocation = \"/d\"\ninclude = [\"*.rs\", 3]\n",
        "a.toml:4:11: tenant.acme.dataset[0].include: expected an array of strings, found an array",
    );
}

#[test]
fn duplicates_are_named_where_they_stand() {
    assert_fault("[tenant.acme]\nweight = 1\nweight = 2\n", "a.toml:3:1: duplicate key \"weight\"");
    assert_fault("[tenant.acme]\n[tenant.acme]\n", "a.toml:2:9: duplicate key \"acme\"");
    assert_fault(
        "[[tenant.acme.dataset]]\nname = \"d\"\nlocation = \"/a\"\n[[tenant.acme.dataset]]\nname = \"d\"\nlocation = \"/b\"\n",
        "a.toml:5:8: tenant.acme.dataset[1].name: the tenant has another dataset with the name \"d\"",
    );
}

#[test]
fn a_tenant_of_two_files_names_both_places() {
    let files = [("a.toml", "# first\n[tenant.acme]\n"), ("b.toml", "[tenant.zeta]\n\n[tenant.acme]\nweight = 3\n")];
    let errors = PolicySet::parse(&files).unwrap_err();
    assert_eq!(errors.to_string(), "b.toml:3:9: tenant acme is defined in a.toml:2:9, too");
}

#[test]
fn zero_is_no_limit_and_no_quota() {
    assert_fault("[tenant.acme]\nweight = 0\n", "a.toml:2:10: tenant.acme.weight: 0 is too small, the least is 1");
    assert_fault(
        "[tenant.acme.quota]\nqueued_tasks = 0\n",
        "a.toml:2:16: tenant.acme.quota.queued_tasks: 0 is too small, the least is 1",
    );
    assert_fault(
        "[tenant.acme.maxima]\nmemory = \"0B\"\n",
        "a.toml:2:10: tenant.acme.maxima.memory: 0 B is too small, the least is 1 MiB",
    );
    assert_fault(
        "[tenant.acme.quota]\ncpu = 0.009\n",
        "a.toml:2:7: tenant.acme.quota.cpu: 0.009 cores is too small, the least is 0.010 cores",
    );
    assert_fault(
        "[tenant.acme]\nweight = -1\n",
        "a.toml:2:10: tenant.acme.weight: \"-1\" is not a whole number from 0 to 18446744073709551615",
    );
}

#[test]
fn numbers_that_do_not_fit_are_refused_rather_than_wrapped() {
    assert_fault(
        "[tenant.acme.quota]\nrunning_jobs = 4294967297\n",
        "a.toml:2:16: tenant.acme.quota.running_jobs: 4294967297 is too large, the most is 1000000",
    );
    assert_fault(
        "[tenant.acme.quota]\nstored = \"99999999999TiB\"\n",
        "a.toml:2:10: tenant.acme.quota.stored: \"99999999999TiB\" is not a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB)",
    );
    assert_fault(
        "[tenant.acme.quota]\nmodules = 99999999999999999999999\n",
        "a.toml:2:11: tenant.acme.quota.modules: \"99999999999999999999999\" is not a whole number from 0 to \
         18446744073709551615",
    );
    assert_fault(
        "[tenant.acme.maxima]\nmemory = \"5GiB\"\n",
        "a.toml:2:10: tenant.acme.maxima.memory: 5 GiB is too large, the most is 4 GiB",
    );
    assert_fault(
        "[tenant.acme]\ntoken_lifetime = \"25h\"\n",
        "a.toml:2:18: tenant.acme.token_lifetime: 25 h 00 m is too large, the most is 24 h 00 m",
    );
}

#[test]
fn values_that_contradict_each_other_are_named_together() {
    assert_fault(
        "[tenant.acme.defaults]\nmemory = \"2GiB\"\n[tenant.acme.maxima]\nmemory = \"1GiB\"\n",
        "a.toml:2:10: tenant.acme.defaults.memory: 2 GiB is more than tenant.acme.maxima.memory, which is 1 GiB",
    );
    assert_fault(
        "[tenant.acme.quota]\nstored = \"1GiB\"\n[tenant.acme.maxima]\noutput = \"2GiB\"\n",
        "a.toml:4:10: tenant.acme.maxima.output: 2 GiB is more than tenant.acme.quota.stored, which is 1 GiB",
    );
}

#[test]
fn a_guarantee_lies_within_the_quota_and_what_is_lent_within_the_guarantee() {
    assert_fault(
        "[tenant.acme.quota]\ncpu = 4\n[tenant.acme.guaranteed]\ncpu = 4.5\n",
        "a.toml:4:7: tenant.acme.guaranteed.cpu: 4.500 cores is more than tenant.acme.quota.cpu, which is 4 cores",
    );
    assert_fault(
        "[tenant.acme.quota]\nstored = \"1GiB\"\n[tenant.acme.guaranteed]\nstored = \"2GiB\"\n",
        "a.toml:4:10: tenant.acme.guaranteed.stored: 2 GiB is more than tenant.acme.quota.stored, which is 1 GiB",
    );
    assert_fault(
        "[tenant.acme.guaranteed]\ncpu = 2\n[tenant.acme.lend]\ncpu = 3\n",
        "a.toml:4:7: tenant.acme.lend.cpu: 3 cores is more than tenant.acme.guaranteed.cpu, which is 2 cores",
    );
    assert_fault(
        "[tenant.acme.lend]\nmemory = \"1GiB\"\n",
        "a.toml:2:10: tenant.acme.lend.memory: 1 GiB is more than tenant.acme.guaranteed.memory, which is 0 B",
    );
    assert_fault(
        "[tenant.acme.guaranteed]\ncpu = 0.5\n",
        "a.toml:2:7: tenant.acme.guaranteed.cpu: 0.500 cores is too small, the least is 1 cores",
    );
}

#[test]
fn a_tenant_without_a_guarantee_may_borrow_some_cpu() {
    assert_fault(
        "[tenant.acme.borrow]\ncpu = 0\n",
        "a.toml:2:7: tenant.acme.borrow.cpu: 0 cores and no guarantee leave the tenant less than the least that it can be \
         held to, so it could never run anything; allow at least 0.01, or guarantee a core",
    );
}

#[test]
fn memory_is_guaranteed_together_with_cores_only() {
    assert_fault(
        "[tenant.acme.guaranteed]\nmemory = \"1GiB\"\n",
        "a.toml:2:10: tenant.acme.guaranteed.memory means nothing without tenant.acme.guaranteed.cpu: \
         tell how many cores are meant",
    );
}

#[test]
fn a_bad_cohort_name_is_refused() {
    assert_fault(
        "[tenant.acme]\ncohort = \"All Of Us\"\n",
        "a.toml:2:10: cohort name \"All Of Us\" is not valid: use 1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit",
    );
}

#[test]
fn datasets_are_plain_absolute_paths() {
    let dataset = |location: &str| format!("[[tenant.acme.dataset]]\nname = \"d\"\nlocation = \"{location}\"\n");
    for (location, problem) in [
        ("data", "is not an absolute path; variables and ~ are not replaced"),
        ("~/data", "is not an absolute path; variables and ~ are not replaced"),
        ("${HOME}/data", "is not an absolute path; variables and ~ are not replaced"),
        ("", "is not an absolute path; variables and ~ are not replaced"),
        ("/", "is the whole file system"),
        ("/srv/../etc", "contains . or .. as a part"),
        ("/srv/./etc", "contains . or .. as a part"),
        ("/srv/\\u0000", "contains control characters"),
    ] {
        let messages = faults(&dataset(location));
        let shown = location.replace("\\u0000", "\\0");
        assert_eq!(messages, [format!("a.toml:3:12: tenant.acme.dataset[0].location: \"{shown}\" {problem}")]);
    }
    assert_fault(
        "[[tenant.acme.dataset]]\nname = \"d\"\n",
        "a.toml:1:1: [tenant.acme.dataset[0]] lacks the key \"location\"",
    );
    assert_fault(
        "[[tenant.acme.dataset]]\nname = \"A/b\"\nlocation = \"/d\"\n",
        "a.toml:2:8: dataset name \"A/b\" is not valid: use 1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit",
    );
}

#[test]
fn patterns_are_for_file_names() {
    for (pattern, problem) in [
        ("", "matches no file"),
        ("src/*.rs", "contains '/', but only file names are matched"),
        ("**.rs", "contains \"**\"; directories are searched anyway, one * is enough"),
        ("*.{rs,toml}", "contains a special character other than * and ?"),
    ] {
        let text =
            format!("[[tenant.acme.dataset]]\nname = \"d\"\nlocation = \"/d\"\ninclude = [\"?.rs\", \"{pattern}\"]\n");
        assert_fault(&text, &format!("a.toml:4:20: tenant.acme.dataset[0].include: \"{pattern}\" {problem}"));
    }
}

#[test]
fn a_bad_tenant_name_is_refused() {
    assert_fault(
        "[tenant.Acme]\n",
        "a.toml:1:9: tenant name \"Acme\" is not valid: use 1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit",
    );
}

#[test]
fn all_faults_of_all_files_are_reported_together_and_in_order() {
    let files = [
        ("a.toml", "[tenant.acme]\nweight = 0\nwieght = 1\n"),
        ("b.toml", "[tenant.beta\nweight = 1\n"),
        ("c.toml", "[tenant.acme]\ntoken_lifetime = 3\n"),
    ];
    let errors = PolicySet::parse(&files).unwrap_err();
    let text = errors.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{} faults in the policies", errors.faults().len()));
    assert_eq!(lines[1], "  a.toml:2:10: tenant.acme.weight: 0 is too small, the least is 1");
    assert!(lines[2].starts_with("  a.toml:3:1: unknown key \"wieght\" in [tenant.acme]; did you mean \"weight\"?"));
    assert!(lines[3].starts_with("  b.toml:1:"), "{text}");
    assert_eq!(lines[lines.len() - 2], "  c.toml:1:9: tenant acme is defined in a.toml:1:9, too");
    assert!(lines[lines.len() - 1].starts_with("  c.toml:2:18: tenant.acme.token_lifetime: expected a time"));
}

#[test]
fn a_line_that_is_not_toml_is_reported_once() {
    let messages = faults("[tenant.acme]\nweight = \ntoken_lifetime = \"1h\"\n");
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].starts_with("a.toml:2:"), "{messages:?}");
}

#[test]
fn a_file_full_of_faults_is_cut_and_says_so() {
    let text: String = (0..20_000).map(|number| format!("key{number} = {number}\n")).collect();
    let messages = faults(&text);
    assert_eq!(messages.len(), 101);
    assert_eq!(messages[100], "a.toml:20001:1: more than 100 faults; the others are not shown");
}

#[test]
fn deep_nesting_and_binary_text_are_errors_not_crashes() {
    let deep = format!("tenant = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(PolicySet::parse(&[("a.toml", deep.as_str())]).is_err());
    let dotted = format!("tenant.{}x = 1", "a.".repeat(100_000));
    assert!(PolicySet::parse(&[("a.toml", dotted.as_str())]).is_err());
    assert!(PolicySet::parse(&[("a.toml", "\u{0}\u{1}[[[\u{fffd}")]).is_err());
}

#[test]
fn a_directory_and_files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent");
    let errors = PolicySet::load(&absent).unwrap_err();
    assert!(errors.to_string().starts_with(&format!("cannot read {}: ", absent.display())), "{errors}");

    fs::write(directory.path().join("b.toml"), [0xff, 0xfe]).unwrap();
    fs::write(directory.path().join("a.toml"), "[tenant.acme]\nweight = 0\n").unwrap();
    fs::write(directory.path().join("c.toml"), vec![b'#'; 2 << 20]).unwrap();
    let errors = PolicySet::load(directory.path()).unwrap_err();
    assert_eq!(errors.faults().len(), 3, "{errors}");
}

#[test]
fn only_toml_files_are_policies_and_their_order_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("b.toml"), "[tenant.b]\n").unwrap();
    fs::write(directory.path().join("a.toml"), "[tenant.a]\n").unwrap();
    fs::write(directory.path().join("notes.txt"), "no policy").unwrap();
    fs::write(directory.path().join("a.toml~"), "[tenant.old]\n").unwrap();
    fs::write(directory.path().join("Cargo.toml"), "[package]\n").unwrap();
    let set = PolicySet::load(directory.path()).unwrap();
    assert_eq!(set.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn the_version_follows_the_text() {
    let version = |text: &str| PolicySet::parse(&[("a.toml", text)]).unwrap().version();
    assert_eq!(version("[tenant.acme]\n"), version("[tenant.acme]\n"));
    assert_ne!(version("[tenant.acme]\n"), version("[tenant.acme]\nweight = 2\n"));
    assert_eq!(version("").to_string().len(), 16);
}

#[test]
fn an_empty_set_grants_nothing() {
    let set = PolicySet::parse::<&str, &str>(&[]).unwrap();
    assert_eq!(set.iter().count(), 0);
}

proptest::proptest! {
    /// Whatever the text, the parser answers; and its answers have places in the file.
    #[test]
    fn any_text_is_answered(text in "(\\[tenant\\.a(\\.quota|\\.maxima)?\\]\n)?([a-z_]{1,12} ?= ?([0-9.\\-]{1,30}|\"[ -~]{0,12}\"|\\[\\])\n|[ -~\n]{0,20}){0,6}") {
        if let Err(errors) = PolicySet::parse(&[("a.toml", text.as_str())]) {
            for fault in errors.faults() {
                let PolicyFault::At { line, column, .. } = fault else { panic!("{fault}") };
                assert!(*line >= 1 && *line <= text.lines().count() + 1 && *column >= 1);
            }
        }
    }
}
