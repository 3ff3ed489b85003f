//! A unit's directives, as far as a process feels them.

use std::path::Path;
use std::sync::Arc;

use crate::config::Origin;

/// What a unit and its drop-ins say, in their order.
#[derive(Debug, Default)]
pub(super) struct Directives {
    /// Who the process is and what it is given: without them it would be another one.
    pub(super) identity: Vec<Directive>,
    /// What is taken from it, in the order of [`SANDBOX`].
    pub(super) sandbox: Vec<Directive>,
}

/// One directive with all its assignments since it was last reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) values: Vec<Assignment>,
}

/// What one line assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) value: String,
    /// The line, in the unit or in one of its drop-ins.
    pub(super) origin: Origin,
}

impl Directives {
    /// Reads what `systemctl cat` prints for the instance `instance`.
    pub(super) fn read(text: &str, instance: &str) -> Self {
        let mut all: Vec<Directive> = Vec::new();
        let mut service = false;
        // Where the file begins whose lines these are.
        let (mut file, mut first): (Arc<Path>, usize) = (Arc::from(Path::new("the unit")), 0);
        for (number, line) in joined(text) {
            let line = line.trim();
            if let Some(path) = heading(line) {
                (file, first, service) = (Arc::from(path), number, false);
                continue;
            }
            if line.starts_with('[') {
                service = line == "[Service]";
                continue;
            }
            if !service || line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            let (name, value) = (name.trim(), expanded(value.trim(), instance));
            let line = u32::try_from(number - first).unwrap_or_default();
            let value = Assignment { value, origin: Origin { file: file.clone(), line, column: 1 } };
            let at = all.iter().position(|known| known.name == name);
            match (at, LISTS.contains(&name)) {
                // An empty assignment forgets the earlier ones (systemd.syntax(7)); for lists that is all it does.
                (Some(at), _) if value.value.is_empty() => all[at].values = vec![value],
                (Some(at), true) => {
                    all[at].values.retain(|value| !value.value.is_empty());
                    all[at].values.push(value);
                }
                (Some(at), false) => all[at].values = vec![value],
                (None, _) => all.push(Directive { name: name.to_owned(), values: vec![value] }),
            }
        }
        let named = |name: &str| all.iter().find(|one| one.name == name).cloned();
        Self {
            identity: IDENTITY.iter().filter_map(|name| named(name)).collect(),
            sandbox: SANDBOX.iter().filter_map(|(name, _)| named(name)).collect(),
        }
    }

    /// Who the process is, for a look that logs in or does not: without a login there is no PIN to be had, and nobody to be
    /// asked for one.
    pub(super) fn identity(&self, login: bool) -> impl Iterator<Item = &Directive> {
        self.identity.iter().filter(move |one| login || !CREDENTIALS.contains(&one.name.as_str()))
    }
}

impl Directive {
    /// As in the unit.
    pub(super) fn spelled(&self) -> String {
        self.values.iter().map(|value| format!("{}={}", self.name, value.value)).collect::<Vec<_>>().join(" ")
    }

    /// What to write instead.
    pub(super) fn relaxed(&self) -> String {
        let relaxed = SANDBOX.iter().find(|(name, _)| *name == self.name).map_or("", |(_, relaxed)| *relaxed);
        if relaxed.is_empty() { format!("{}=no", self.name) } else { relaxed.to_owned() }
    }
}

/// What `systemctl cat` prints above each file: its path, as a comment.
fn heading(line: &str) -> Option<&Path> {
    let path = line.strip_prefix("# ").filter(|path| path.starts_with('/') && !path.contains(' '))?;
    [".service", ".conf"].iter().any(|end| path.ends_with(end)).then(|| Path::new(path))
}

/// Lines and their numbers, counted from 0, with those that end in a backslash joined with the next.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let (line, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut().filter(|_| open) {
            Some((_, last)) => {
                last.push(' ');
                last.push_str(line);
            }
            None => lines.push((number, line.to_owned())),
        }
        open = goes_on;
    }
    lines
}

/// The specifiers that our units and drop-ins use (systemd.unit(5)).
fn expanded(value: &str, instance: &str) -> String {
    value.replace("%%", "\0").replace("%i", instance).replace("%I", instance).replace('\0', "%")
}

const IDENTITY: &[&str] = &[
    "User",
    "Group",
    "SupplementaryGroups",
    "Environment",
    "EnvironmentFile",
    "StateDirectory",
    "StateDirectoryMode",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "SetCredentialEncrypted",
    "UMask",
];

/// Of those, what may have a PIN in it.
const CREDENTIALS: &[&str] = &["LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"];

/// Directives that take something away, in the order in which they are tried: first what opens, since without it another one
/// would be blamed that closes everything else; then rather the file system than the rest, since that is what stands in the way
/// most often. With each, what to write where it does; nothing where `no` is the answer.
const SANDBOX: &[(&str, &str)] = &[
    ("ExecPaths", "ExecPaths= with the folders of the module and its libraries"),
    ("ReadWritePaths", "ReadWritePaths= with what the module writes"),
    ("BindPaths", "BindPaths= with paths that exist"),
    ("BindReadOnlyPaths", "BindReadOnlyPaths= with paths that exist"),
    ("DeviceAllow", "DeviceAllow= with the device"),
    ("IPAddressAllow", "IPAddressAllow= with the device's addresses"),
    ("SocketBindAllow", "SocketBindAllow= with the ports that the module listens on"),
    ("ProtectHome", "BindReadOnlyPaths= with what the module reads there"),
    ("ProtectSystem", "ReadWritePaths= with what the module writes"),
    ("PrivateTmp", "BindPaths= with what the module shares in /tmp, or PrivateTmp=no"),
    ("PrivateMounts", ""),
    ("InaccessiblePaths", "InaccessiblePaths= (empty), and the list anew without what the module needs"),
    ("ReadOnlyPaths", "ReadOnlyPaths= without what the module writes"),
    ("TemporaryFileSystem", "TemporaryFileSystem= without the folder that the module needs"),
    ("NoExecPaths", "ExecPaths= with the folders of the module and its libraries"),
    ("ProtectProc", "ProtectProc=default"),
    ("ProcSubset", "ProcSubset=all"),
    ("PrivateDevices", "PrivateDevices=no and DeviceAllow= with the device"),
    ("DevicePolicy", "DeviceAllow= with the device"),
    ("PrivateNetwork", "PrivateNetwork=no, and IPAddressAllow= with the device's addresses"),
    ("RestrictAddressFamilies", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"),
    ("IPAddressDeny", "IPAddressAllow= with the device's addresses"),
    ("SocketBindDeny", "SocketBindAllow= with the ports that the module listens on"),
    ("PrivateIPC", "PrivateIPC=no"),
    ("PrivateUsers", ""),
    ("MemoryDenyWriteExecute", ""),
    ("MemorySwapMax", "MemorySwapMax=infinity"),
    ("LimitMEMLOCK", "LimitMEMLOCK= with more"),
    ("LimitNOFILE", "LimitNOFILE= with more"),
    ("LimitCORE", "LimitCORE=infinity"),
    ("TasksMax", "TasksMax= with more"),
    ("CapabilityBoundingSet", "CapabilityBoundingSet= with the capability that the module needs"),
    ("AmbientCapabilities", "AmbientCapabilities= with the capability that the module needs"),
    ("NoNewPrivileges", ""),
    ("RestrictSUIDSGID", ""),
    ("RestrictNamespaces", ""),
    ("RestrictRealtime", ""),
    ("RestrictFileSystems", "RestrictFileSystems= (empty)"),
    ("KeyringMode", "KeyringMode=inherit"),
    ("LockPersonality", ""),
    ("ProtectClock", ""),
    ("ProtectControlGroups", ""),
    ("ProtectHostname", ""),
    ("ProtectKernelLogs", ""),
    ("ProtectKernelModules", ""),
    ("ProtectKernelTunables", ""),
    ("SystemCallArchitectures", "SystemCallArchitectures= (empty)"),
    ("SystemCallErrorNumber", "SystemCallErrorNumber=EPERM"),
    ("SystemCallFilter", "SystemCallFilter= with the calls that the module needs; strace shows them"),
];

/// Directives whose assignments add up.
const LISTS: &[&str] = &[
    "SupplementaryGroups",
    "Environment",
    "EnvironmentFile",
    "StateDirectory",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "SetCredentialEncrypted",
    "InaccessiblePaths",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "BindPaths",
    "BindReadOnlyPaths",
    "TemporaryFileSystem",
    "ExecPaths",
    "NoExecPaths",
    "DeviceAllow",
    "RestrictAddressFamilies",
    "IPAddressAllow",
    "IPAddressDeny",
    "SocketBindAllow",
    "SocketBindDeny",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "SystemCallFilter",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn values(directives: &[Directive], name: &str) -> Vec<String> {
        let found = directives.iter().find(|one| one.name == name);
        found.map(|one| one.values.iter().map(|value| value.value.clone()).collect()).unwrap_or_default()
    }

    fn places(directives: &[Directive], name: &str) -> Vec<String> {
        let found = directives.iter().find(|one| one.name == name);
        found.map(|one| one.values.iter().map(|value| value.origin.to_string()).collect()).unwrap_or_default()
    }

    #[test]
    fn a_unit_and_its_drop_ins_are_read_as_systemd_reads_them() {
        let text = "# /usr/lib/systemd/system/x@.service\n[Unit]\nAfter=a\n[Service]\nUser=worker\nStateDirectory=w/%i\n\
                    # why\nExecPaths=/usr \\\n  /opt\nPrivateDevices=yes\nSystemCallFilter=@system-service\n\
                    SystemCallFilter=~@aio\nRestart=always\n\n# /etc/systemd/system/x@main.service.d/a.conf\n[Service]\n\
                    PrivateDevices=no\nDeviceAllow=/dev/a rw\nExecPaths=/srv\nRestrictAddressFamilies=AF_UNIX\n\
                    RestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET\nEnvironment=A=50%%\n";
        let read = Directives::read(text, "main");
        assert_eq!(values(&read.identity, "StateDirectory"), ["w/main"]);
        assert_eq!(values(&read.identity, "Environment"), ["A=50%"]);
        assert_eq!(values(&read.sandbox, "ExecPaths"), ["/usr    /opt", "/srv"]);
        let (unit, drop_in) = ("/usr/lib/systemd/system/x@.service", "/etc/systemd/system/x@main.service.d/a.conf");
        assert_eq!(places(&read.sandbox, "ExecPaths"), [format!("{unit}:7:1"), format!("{drop_in}:4:1")]);
        assert_eq!(places(&read.sandbox, "PrivateDevices"), [format!("{drop_in}:2:1")]);
        assert_eq!(values(&read.sandbox, "PrivateDevices"), ["no"]);
        assert_eq!(values(&read.sandbox, "SystemCallFilter"), ["@system-service", "~@aio"]);
        assert_eq!(values(&read.sandbox, "RestrictAddressFamilies"), ["AF_INET"]);
        // Everything is closed only after what stays open is known.
        let order: Vec<&str> = read.sandbox.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            order,
            ["ExecPaths", "DeviceAllow", "PrivateDevices", "RestrictAddressFamilies", "SystemCallFilter"]
        );
        assert!(!read.sandbox.iter().chain(&read.identity).any(|one| ["Restart", "After"].contains(&&*one.name)));
    }

    /// What the unit takes away and this list does not know would never be found in the way.
    #[test]
    fn every_directive_of_the_worker_s_unit_is_known() {
        const ELSE: &[&str] = &[
            "Type",
            "NotifyAccess",
            "Sockets",
            "ExecStart",
            "Restart",
            "RestartSec",
            "TimeoutStartSec",
            "TimeoutStopSec",
            "TimeoutAbortSec",
            "KillMode",
            "WatchdogSec",
            "RemoveIPC",
            "CPUSchedulingPolicy",
        ];
        let unit = include_str!("../../../../systemd/signer-token@.service");
        let read = Directives::read(unit, "main");
        assert!(read.sandbox.len() > 25 && read.identity.len() > 4);
        let service =
            unit.split("[Service]").nth(1).and_then(|rest| rest.split("[Install]").next()).unwrap_or_default();
        for line in service.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, _)) = line.split_once('=') else { continue };
            let known =
                SANDBOX.iter().any(|(known, _)| *known == name) || IDENTITY.contains(&name) || ELSE.contains(&name);
            assert!(known, "{name}");
        }
    }
}
