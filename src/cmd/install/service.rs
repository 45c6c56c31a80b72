//! The file that makes a service manager start the agent, and the commands around it (DECIDE).

use std::path::{Path, PathBuf};

/// The unit for systemd's user manager. Only directives that need no user namespace: the sandbox is mesh's own, and needs
/// the namespaces itself.
const SYSTEMD: &str = include_str!("mesh.service");
/// The job for launchd. `ProcessType` is `Standard`, because `Background` would keep every compiler on the slow cores.
const LAUNCHD: &str = include_str!("org.mesh.agent.plist");
/// By this a file is known to be mesh's to replace and to remove.
const MARK: &str = "Written by \"mesh install\"";

/// Who starts the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    /// systemd's manager of one user.
    Systemd,
    /// macOS's launchd, for one user's sessions.
    Launchd,
}

/// What a service is made from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The `mesh` program, absolute.
    pub(super) program: &'a Path,
    /// The home directory.
    pub(super) home: &'a Path,
    /// `XDG_CONFIG_HOME`, if it is set.
    pub(super) config_home: Option<&'a Path>,
    /// Variables that the agent must see as this shell does.
    pub(super) env: &'a [(String, String)],
    /// The user.
    pub(super) uid: u32,
}

/// A service: its file and the commands that go with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Where the file lies.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) text: String,
    /// What is run once it lies there.
    pub(super) start: Vec<Vec<String>>,
    /// What is run before it is removed.
    pub(super) stop: Vec<Vec<String>>,
    /// What is run after that.
    pub(super) after: Vec<Vec<String>>,
    /// A link that `start` makes and `stop` removes.
    pub(super) enabled: Option<PathBuf>,
}

/// A path or value that a service's file cannot hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot stand in a service's file: it is not UTF-8, or has control characters")]
pub(super) struct Unwritable(String);

fn lines(commands: &[&str]) -> Vec<Vec<String>> {
    commands.iter().map(|c| c.split(' ').map(str::to_owned).collect()).collect()
}

/// The service of one user.
pub(super) fn service(manager: Manager, facts: &Facts<'_>) -> Result<Service, Unwritable> {
    let program = writable(&facts.program.to_string_lossy(), facts.program.to_str().is_some())?;
    for (_, value) in facts.env {
        writable(value, true)?;
    }
    match manager {
        Manager::Systemd => {
            let dir = facts.config_home.map_or_else(|| facts.home.join(".config"), Path::to_owned).join("systemd/user");
            let env: Vec<String> = facts
                .env
                .iter()
                .map(|(name, value)| format!("Environment={}", systemd_word(&format!("{name}={value}"), false)))
                .collect();
            Ok(Service {
                path: dir.join("mesh.service"),
                text: fill(SYSTEMD, &systemd_word(&program, true), &env, ""),
                start: lines(&["systemctl --user daemon-reload", "systemctl --user enable --now mesh.service"]),
                stop: lines(&["systemctl --user disable --now mesh.service"]),
                after: lines(&["systemctl --user daemon-reload"]),
                enabled: Some(dir.join("default.target.wants/mesh.service")),
            })
        }
        Manager::Launchd => {
            let path = facts.home.join("Library/LaunchAgents/org.mesh.agent.plist");
            let log = facts.home.join("Library/Logs/mesh.log");
            let log = xml(&writable(&log.to_string_lossy(), log.to_str().is_some())?);
            let pair = |(name, value): &(String, String)| {
                format!("\t\t<key>{}</key>\n\t\t<string>{}</string>", xml(name), xml(value))
            };
            let env: Vec<String> = facts.env.iter().map(pair).collect();
            let domain = format!("gui/{}", facts.uid);
            let bootstrap = ["launchctl", "bootstrap", &domain].map(str::to_owned);
            Ok(Service {
                text: fill(LAUNCHD, &xml(&program), &env, &log),
                start: vec![bootstrap.into_iter().chain([path.to_string_lossy().into_owned()]).collect()],
                stop: lines(&[&format!("launchctl bootout {domain}/org.mesh.agent")]),
                after: vec![],
                enabled: None,
                path,
            })
        }
    }
}

/// Whether this is a file that mesh wrote.
pub(super) fn is_own(text: &str) -> bool {
    text.lines().take(2).any(|line| line.contains(MARK))
}

fn fill(template: &str, program: &str, env: &[String], log: &str) -> String {
    let mut out = String::new();
    for line in template.lines() {
        if line == "@ENVIRONMENT@" {
            out.extend(env.iter().map(|e| format!("{e}\n")));
        } else {
            // One mark a line: what is put in is never looked at again.
            let (mark, value) = if line.contains("@PROGRAM@") { ("@PROGRAM@", program) } else { ("@LOG@", log) };
            out.push_str(&line.replacen(mark, value, 1));
            out.push('\n');
        }
    }
    out
}

fn writable(text: &str, is_utf8: bool) -> Result<String, Unwritable> {
    if is_utf8 && !text.chars().any(char::is_control) { Ok(text.to_owned()) } else { Err(Unwritable(text.to_owned())) }
}

/// A word in quotes as `systemd.syntax(7)` reads them; in a command `$` would be a variable too.
fn systemd_word(text: &str, command: bool) -> String {
    let mut out = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if command {
        out = out.replace('$', "$$");
    }
    format!("\"{out}\"")
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(program: &'a str, env: &'a [(String, String)]) -> Facts<'a> {
        Facts { program: Path::new(program), home: Path::new("/home/ana"), config_home: None, env, uid: 1000 }
    }

    #[test]
    fn the_unit_runs_the_agent_as_one_user() {
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let unit = service(Manager::Systemd, &facts("/usr/bin/mesh", &env)).expect("plain");
        assert_eq!(unit.path, Path::new("/home/ana/.config/systemd/user/mesh.service"));
        assert!(is_own(&unit.text));
        insta::assert_snapshot!(unit.text, @r#"
        # Written by "mesh install"; "mesh uninstall" removes it.
        [Unit]
        Description=mesh build agent
        StartLimitIntervalSec=0

        [Service]
        Type=exec
        ExecStart="/usr/bin/mesh" agent
        Environment="PATH=/usr/bin:/bin"
        Restart=on-failure
        RestartSec=2
        TimeoutStopSec=35
        KillMode=mixed
        Delegate=cpu io memory pids
        CPUWeight=20
        IOWeight=20
        OOMPolicy=continue
        TasksMax=4096
        LimitNOFILE=65536
        UMask=0077
        NoNewPrivileges=yes

        [Install]
        WantedBy=default.target
        "#);
        let xdg = Facts { config_home: Some(Path::new("/xdg")), ..facts("/usr/bin/mesh", &[]) };
        let unit = service(Manager::Systemd, &xdg).expect("plain");
        assert_eq!(unit.path, Path::new("/xdg/systemd/user/mesh.service"));
    }

    #[test]
    fn the_plist_runs_the_agent_as_one_user() {
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let job = service(Manager::Launchd, &facts("/opt/a & b/mesh", &env)).expect("plain");
        assert_eq!(job.path, Path::new("/home/ana/Library/LaunchAgents/org.mesh.agent.plist"));
        assert!(is_own(&job.text));
        insta::assert_snapshot!(job.text, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <!-- Written by "mesh install"; "mesh uninstall" removes it. -->
        <!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
        <plist version="1.0">
        <dict>
        	<key>Label</key>
        	<string>org.mesh.agent</string>
        	<key>ProgramArguments</key>
        	<array>
        		<string>/opt/a &amp; b/mesh</string>
        		<string>agent</string>
        	</array>
        	<key>EnvironmentVariables</key>
        	<dict>
        		<key>PATH</key>
        		<string>/usr/bin:/bin</string>
        	</dict>
        	<key>RunAtLoad</key>
        	<true/>
        	<key>KeepAlive</key>
        	<dict>
        		<key>SuccessfulExit</key>
        		<false/>
        	</dict>
        	<key>ThrottleInterval</key>
        	<integer>5</integer>
        	<key>ProcessType</key>
        	<string>Standard</string>
        	<key>SoftResourceLimits</key>
        	<dict>
        		<key>NumberOfFiles</key>
        		<integer>8192</integer>
        	</dict>
        	<key>ExitTimeOut</key>
        	<integer>35</integer>
        	<key>Umask</key>
        	<integer>63</integer>
        	<key>StandardErrorPath</key>
        	<string>/home/ana/Library/Logs/mesh.log</string>
        </dict>
        </plist>
        "#);
        assert_eq!(job.start.concat().join(" "), format!("launchctl bootstrap gui/1000 {}", job.path.display()));
    }

    #[test]
    fn odd_paths_are_quoted_and_unwritable_ones_refused() {
        let env = [("MESH_DIR".to_owned(), "/a %h \"b\" $HOME".to_owned())];
        let unit = service(Manager::Systemd, &facts("/opt/100% \"mesh\" $x\\", &env)).expect("can be quoted").text;
        assert!(unit.contains("ExecStart=\"/opt/100%% \\\"mesh\\\" $$x\\\\\" agent\n"), "{unit}");
        assert!(unit.contains("Environment=\"MESH_DIR=/a %%h \\\"b\\\" $HOME\"\n"), "{unit}");
        let odd = [("MESH_DIR".to_owned(), "a\nExecStart=/bin/sh".to_owned())];
        assert!(service(Manager::Systemd, &facts("/mesh", &odd)).is_err());
        assert!(service(Manager::Launchd, &facts("/a\u{1}", &[])).is_err());
        let marked = service(Manager::Launchd, &facts("/@LOG@/mesh", &[])).expect("plain").text;
        assert!(marked.contains("<string>/@LOG@/mesh</string>"), "{marked}");
    }
}
