#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

#[test]
fn every_folder_is_embedded_under_its_own_name_and_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-profiles");
    let on_disk: BTreeSet<String> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let embedded: Vec<&str> = FILES.iter().map(|file| file.name).collect();
    assert!(embedded.is_sorted());
    assert_eq!(on_disk.iter().map(String::as_str).collect::<Vec<_>>(), embedded);
    for file in FILES {
        let profile: Profile = toml::from_str(file.profile).unwrap_or_else(|error| panic!("{}: {error}", file.name));
        assert_eq!(profile.name, file.name);
        assert_eq!(find(file.name).map(|found| &found.title), Some(&profile.title));
    }
    assert!(find("frobnicator").is_none());
}

#[test]
fn every_value_has_a_reason_of_more_than_a_word() {
    for profile in all() {
        let mut reasons = vec![&profile.sessions.reason, &profile.call_timeout.reason];
        reasons.extend(profile.login_timeout.as_ref().map(|stated| &stated.reason));
        reasons.extend(profile.max_sessions.as_ref().map(|stated| &stated.reason));
        reasons.extend(profile.keep_alive.as_ref().map(|stated| &stated.reason));
        reasons.extend([&profile.login.pin.reason, &profile.login.warns.reason]);
        reasons.extend(profile.login.locks_after.as_ref().map(|stated| &stated.reason));
        reasons.extend(profile.retry_codes.iter().map(|code| &code.reason));
        reasons.extend(profile.quirks.iter().flat_map(|quirk| [&quirk.what, &quirk.consequence]));
        for reason in reasons {
            assert!(reason.split_whitespace().count() >= 4, "{}: `{reason}` is no reason", profile.name);
        }
        assert!(!profile.basis.trim().is_empty() && !profile.title.trim().is_empty(), "{}", profile.name);
        // A device without a module is the one that needs no path; all others say where theirs is.
        assert_eq!(profile.modules.is_empty(), profile.backend == Backend::Yubihsm, "{}", profile.name);
        assert!(profile.modules.iter().all(|module| module.path.is_absolute()), "{}", profile.name);
    }
}

#[test]
fn what_was_never_run_here_claims_no_run_and_the_other_way_round() {
    for profile in all() {
        let mut sources = vec![&profile.sessions.source, &profile.call_timeout.source, &profile.login.pin.source];
        sources.extend(profile.login_timeout.as_ref().map(|stated| &stated.source));
        sources.extend(profile.modules.iter().map(|module| &module.source));
        sources.extend(profile.retry_codes.iter().map(|code| &code.source));
        sources.extend(profile.quirks.iter().map(|quirk| &quirk.source));
        let runs = sources.iter().any(|source| matches!(source, Source::Run(_)));
        assert_eq!(runs, profile.evidence != Evidence::Documents, "{}", profile.name);
        let said = match profile.evidence {
            Evidence::RunHere => "**Run here.**",
            Evidence::Simulated => "**Run here on a simulation only.**",
            Evidence::Documents => "**Written from documents, never run here.**",
        };
        let top: Vec<&str> = profile.manual().lines().take(3).collect();
        assert!(top.iter().any(|line| line.starts_with(said)), "{}: the top of README.md lacks {said}", profile.name);
    }
}

#[test]
fn the_sessions_of_a_profile_are_within_what_its_device_has() {
    for profile in all() {
        if let Some(max) = &profile.max_sessions {
            assert!(profile.sessions.value <= max.value, "{}", profile.name);
        }
        let (timeout, keep_alive) = (profile.call_timeout.value, profile.keep_alive.as_ref().map(|k| k.value));
        assert!(timeout <= Span::seconds(60), "{}: callers have long gone by then", profile.name);
        let login = profile.login_timeout.as_ref().map_or(timeout, |stated| stated.value);
        assert!((timeout..=Span::seconds(300)).contains(&login), "{}: a login is no quicker than a call", profile.name);
        assert!(keep_alive.is_none_or(|every| every >= Span::seconds(1)), "{}", profile.name);
    }
}

#[test]
fn every_line_of_a_drop_in_has_its_reason_above_it_and_is_a_directive_of_systemd_252() {
    for profile in all() {
        let mut reason = false;
        let mut section = "";
        for (number, line) in profile.drop_in().lines().enumerate() {
            let place = format!("{}/signer-token.conf:{}", profile.name, number + 1);
            match line.trim() {
                "" => reason = false,
                comment if comment.starts_with('#') => reason = comment.len() > 10,
                "[Service]" | "[Unit]" => section = line,
                directive => {
                    let name = directive.split_once('=').unwrap_or_else(|| panic!("{place}: no directive")).0;
                    let known: &[&str] = if section == "[Unit]" { UNIT } else { SERVICE };
                    assert!(!section.is_empty() && known.contains(&name), "{place}: `{name}` in {section}");
                    assert!(reason, "{place}: no comment above says why");
                    reason = false;
                }
            }
        }
    }
}

/// `IPAddressAllow=` alone forbids nothing.
#[test]
fn a_drop_in_that_allows_an_address_denies_all_others() {
    let directives = |profile: &Profile, name: &str| profile.drop_in().lines().any(|line| line.starts_with(name));
    let network: Vec<_> = all().iter().filter(|profile| directives(profile, "IPAddressAllow=")).collect();
    assert!(network.len() > 3);
    for profile in network {
        assert!(directives(profile, "IPAddressDeny=any"), "{}", profile.name);
    }
}

#[test]
fn a_source_says_where() {
    assert_eq!("doc: PKCS #11".parse(), Ok(Source::Document("PKCS #11".to_owned())));
    for wrong in ["", "doc:", "doc: ", "hearsay: somebody", "https://example.com"] {
        let error = wrong.parse::<Source>().unwrap_err();
        assert!(error.contains("unverified: …"), "{error}");
    }
    assert!(toml::from_str::<Profile>("name = \"x\"\ncolour = 1\n").unwrap_err().to_string().contains("colour"));
}

#[test]
fn a_profile_gives_defaults_and_no_profile_gives_the_usual_ones() {
    assert_eq!(Defaults::of(None), Defaults::UNNAMED);
    let nethsm = find("nitrokey-nethsm").unwrap();
    assert_eq!(Defaults::of(Some(nethsm)).keep_alive, nethsm.keep_alive.as_ref().map(|stated| stated.value));
    assert!(Defaults::of(Some(nethsm)).keep_alive.is_some(), "an idle network HSM is forgotten by firewalls");
}

/// Directives that the drop-ins use, all of systemd 252 or older (systemd.exec(5), systemd.resource-control(5),
/// systemd.unit(5)).
const SERVICE: &[&str] = &[
    "BindPaths",
    "BindReadOnlyPaths",
    "DeviceAllow",
    "Environment",
    "IPAddressAllow",
    "IPAddressDeny",
    "InaccessiblePaths",
    "LimitMEMLOCK",
    "LoadCredential",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "PrivateNetwork",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RestrictAddressFamilies",
    "StateDirectory",
    "SupplementaryGroups",
    "SystemCallFilter",
    "WatchdogSec",
];
const UNIT: &[&str] = &["After", "BindsTo", "Requires", "Wants"];
