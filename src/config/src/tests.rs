use super::*;
use std::path::Path;

fn load(main: &str, fragment: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("hybond.toml");
    std::fs::write(&path, main).expect("write");
    std::fs::create_dir(dir.path().join("hybond.d")).expect("mkdir");
    std::fs::write(dir.path().join("hybond.d/10.toml"), fragment).expect("write");
    Config::load(&path)
}

/// `file:line: problem` of a configuration that cannot be used.
#[track_caller]
fn problem(main: &str, fragment: &str) -> String {
    let error = load(main, fragment).expect_err("it makes no sense");
    let ConfigError::Invalid { path, line, problem } = error else {
        panic!("{error:?}")
    };
    let file = path.file_name().expect("a file").to_string_lossy().into_owned();
    format!("{file}:{line}: {problem}")
}

#[test]
fn fragments_replace_values_and_add_pools() {
    let config = load(
        "[host]\npeer = 'a:1'\nplug = 'group'\n[[pool]]\nname = 'lan'\npf = ['pf0', 'pf1']\n",
        "[host]\npeer = 'b:2'\n[[pool]]\nname = 'dmz'\npf = 'pf2'\n[guest]\ndrain_seconds = 90\npreallocate = false\n",
    )
    .expect("valid");
    assert_eq!(config.peer.as_ref().expect("given").as_str(), "b:2");
    assert_eq!(config.plug, Some(PlugWay::Group));
    assert_eq!(config.pools.len(), 2);
    assert_eq!(config.guest.drain_within, 90_000);
    assert!(!config.preallocate && Config::default().preallocate);
    let files: Vec<_> = config
        .files
        .iter()
        .map(|file| file.file_name().expect("a name"))
        .collect();
    assert_eq!(files, ["hybond.toml", "10.toml"]);
    assert!(!config.needs_restart(&Config {
        pools: BTreeMap::new(),
        alias: [("lan0".parse().expect("a name"), "ens1".to_owned())].into(),
        ..config.clone()
    }));
    assert!(config.needs_restart(&Config {
        plug: None,
        ..config.clone()
    }));
}

#[test]
fn further_names_of_pfs_are_read() {
    let config = load(
        "[alias]\n'eth02bc4aec-b4' = 'enp1s0f0'\n",
        "[alias]\nstorage0 = 'storage'\n",
    );
    let alias = config.expect("valid").alias;
    let read: Vec<_> = alias.iter().map(|(name, of)| (name.as_str(), of.as_str())).collect();
    assert_eq!(read, [("eth02bc4aec-b4", "enp1s0f0"), ("storage0", "storage")]);
    let long = problem("[alias]\n'longer-than-15-characters' = 'pf0'\n", "");
    assert!(
        long.starts_with("hybond.toml:") && long.contains("at most 15 characters"),
        "{long}"
    );
}

#[test]
fn a_configuration_that_is_not_there_is_an_empty_one() {
    let config = Config::load(Path::new("/nonexistent/hybond.toml")).expect("empty");
    assert_eq!(config, Config::default());
}

#[test]
fn the_list_form_fills_pools_whether_they_have_a_section_or_not() {
    let config = load(
        "[host]\ndevices = '28:00.1|10GE,28:00.2|10GE'\n",
        "[host]\ndevices = ['28:00.1|10GE, 28:00.1|gold', '28:00.2|10GE,28:00.1|10GE']\n[[pool]]\nname = 'gold'\ntrust = true\n",
    )
    .expect("valid");
    let devices = |pool: &str| {
        let pool = &config.pools[&pool.parse().expect("a name")];
        (
            pool.trust,
            pool.devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        devices("10GE"),
        (None, vec!["0000:28:00.1".to_owned(), "0000:28:00.2".to_owned()])
    );
    assert_eq!(devices("gold"), (Some(true), vec!["0000:28:00.1".to_owned()]));
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_line_and_what_is_allowed() {
    let pool = |line: &str| problem(&format!("[[pool]]\nname = 'lan'\n{line}\n"), "");
    for (found, place, words) in [
        (
            problem("[host]\npeers = 'a'\n", ""),
            "hybond.toml:2: ",
            "unknown field `peers`, expected one of `peer`, `listen`",
        ),
        (
            problem("[host]\nplug = 'magic'\n", ""),
            "hybond.toml:2: ",
            "expected one of `iommufd`, `group`, `libvirt`, `emulated` (in \"plug = 'magic'\")",
        ),
        (
            problem("", "\n[host]\nlisten = '16515'\n"),
            "10.toml:3: ",
            "\"16515\" is not an address and a port, such as \"[::]:16515\"",
        ),
        (
            problem("[host]\ndevices = '28:00.1'\n", ""),
            "hybond.toml:2: ",
            "is not <PCI address>|<pool>, such as \"28:00.1|10GE\"",
        ),
        (
            problem("[guest]\nretry_seconds = 9223372036854775807\n", ""),
            "hybond.toml:2: ",
            "9223372036854775807 is not a number of seconds from 1 to 86400",
        ),
        (
            problem("", "[guest]\nretry_seconds = 0\n"),
            "10.toml:2: ",
            "0 is not a number of seconds from 1 to 86400",
        ),
        (problem("[guest\n", ""), "hybond.toml:1: ", "(in \"[guest\")"),
        (
            pool("pf = ['ens1', 'a/b']"),
            "hybond.toml:3: ",
            "\"a/b\" is not an interface name of at most 15 characters",
        ),
        (
            pool("vf = ['01:10.6-01:10.0']"),
            "hybond.toml:3: ",
            "or a range from the lower to the higher one such as \"0000:01:10.0-0000:01:10.6\"",
        ),
        (
            pool("pci_id = '8086'"),
            "hybond.toml:3: ",
            "\"8086\" is not vendor and device of a VF as lspci -nn prints them, such as \"8086:10ca\"",
        ),
        (pool("numa_node = 'x'"), "hybond.toml:3: ", "expected u32"),
        (
            pool("numa_node = -1"),
            "hybond.toml:3: ",
            "a number below 0 is not allowed here",
        ),
        (
            pool("numa_node = true"),
            "hybond.toml:3: ",
            "expected a value or a list of values",
        ),
        (
            pool("pf = 'ens1'\ntrust = 'yes'"),
            "hybond.toml:4: ",
            "invalid type: string \"yes\", expected a boolean (in \"trust = 'yes'\")",
        ),
        (
            pool("trust = true"),
            "hybond.toml:1: ",
            "pool lan selects no VFs: add at least one of pf, vf, pci_id, numa_node and pf_driver",
        ),
        (
            pool("pf = 'ens1'\nnuma_node = 0\nemulated = { bridge = 'br0', count = 2 }"),
            "hybond.toml:1: ",
            "pool lan is emulated, so there are no VFs to select",
        ),
        (
            problem(
                "[[pool]]\nname = 'lan'\npf = 'a'\n",
                "\n[[pool]]\nname = 'lan'\npf = 'b'\n",
            ),
            "10.toml:2: ",
            "hybond.toml:1 already; give each pool one [[pool]] section",
        ),
        (
            problem("[guest]\nunplug_seconds = 70\n", "[guest]\nretry_seconds = 1\n"),
            "hybond.toml:2: ",
            "guest.unplug_seconds, 70, must be less than guest.drain_seconds, 60",
        ),
    ] {
        assert!(found.starts_with(place) && found.contains(words), "{found}");
        assert!(!found.contains('\n'), "{found}");
    }
    load("[guest]\nunplug_seconds = 70\n", "[guest]\ndrain_seconds = 80\n").expect("judged when all is read");
}

#[test]
fn what_is_wrong_is_told_in_few_words_that_steer_no_terminal() {
    let long = "x".repeat(100_000);
    for key in [
        format!("{long} = 1"),
        format!("\"\\u001b[2J{long}\" = 1"),
        format!("peer = '{long}'"),
    ] {
        let problem = problem(&format!("[host]\n{key}\n"), "");
        assert!(problem.len() < 4096 && !problem.contains(char::is_control), "{problem}");
    }
}

#[test]
fn the_example_that_is_installed_is_valid_as_it_is_and_with_every_line_in_use() {
    let example = include_str!("../../../packaging/config/hybond.toml");
    assert_eq!(load(example, "").expect("valid").pools.len(), 0);
    // Sentences have a space after their '#', keys have none.
    let in_use = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = example.lines().map(in_use).collect();
    let config = load(&all.join("\n"), "").expect("valid");
    let selectors = |name: &str| config.pools[&name.parse().expect("a name")].selectors().len();
    assert_eq!((selectors("lan"), selectors("10GE")), (7, 0));
}

#[test]
fn what_both_paths_are_to_be_is_said_by_the_pool() {
    let written = |keys: &str| format!("[[pool]]\nname = 'lan'\npf = ['pf0']\n{keys}\n");
    let of = |keys: &str| {
        let mut config = load(&written(keys), "").expect("valid");
        config.pools.pop_first().expect("a pool").1
    };
    use hybond_core::paths::MulticastPolicy;
    assert_eq!(of("").multicast(), MulticastPolicy::Follow);
    assert_eq!(of("allmulticast = true").multicast(), MulticastPolicy::Everything);
    assert_eq!(of("allmulticast = false").multicast(), MulticastPolicy::Nothing);
    let full = of("mtu = 9000\nmin_tx_rate = 100\nmax_tx_rate = 1000\nhandover = { standby = 'drop' }");
    assert_eq!(
        (full.mtu, full.min_tx_rate, full.max_tx_rate),
        (Some(9000), Some(100), Some(1000))
    );
    assert!(full.handover.standby.is_some() && full.handover.set_mac.is_none());

    let wrong = |keys: &str| problem(&written(keys), "");
    assert!(wrong("mtu = 100").contains("pool lan: mtu is 1280 to 65535 bytes"));
    assert!(wrong("min_tx_rate = 2000\nmax_tx_rate = 1000").contains("must not be more than max_tx_rate, 1000"));
    let text = wrong("handover = { standby = 'up' }");
    assert!(text.contains("keep") && text.contains("drop"), "{text}");
}
