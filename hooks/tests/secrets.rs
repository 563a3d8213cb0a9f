//! Whatever is wrong with a domain's XML, nothing of it but hybond's own leaves the hook: not in its sentence, which libvirt
//! logs and shows, and not on the way to the daemon.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

const SECRET: &str = "s3cr3t";

/// Hybrid, with secrets in all places where domains have them.
fn domain() -> String {
    format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web-1</name>
  <uuid>a2a2a2a2-0000-4000-8000-000000000002</uuid>
  <description>{SECRET}-description</description>
  <metadata><hybond:domain xmlns:hybond='urn:hybond:domain:1'>
    <hybond:pair mac='52:54:00:aa:00:01' pool='10GE' policy='require'/><hybond:source peer='node1'/>
  </hybond:domain><other:x xmlns:other='urn:other'>{SECRET}-metadata</other:x></metadata>
  <launchSecurity type='sev'><session>{SECRET}session</session></launchSecurity>
  <sysinfo type='smbios'><oemStrings><entry>{SECRET}-oem</entry></oemStrings></sysinfo>
  <devices>
    <disk type='network'><auth username='x'><secret type='ceph' uuid='{SECRET}'/></auth></disk>
    <interface type='direct'><mac address='52:54:00:aa:00:01'/><source dev='enp1s0f0' mode='bridge'/></interface>
    <graphics type='vnc' passwd='{SECRET}-vnc'/><graphics type='spice' passwd='{SECRET}-spice'/>
  </devices>
  <qemu:commandline><qemu:arg value='secret,id=x,data={SECRET}-arg'/></qemu:commandline>
</domain>
"
    )
}

/// What was said to whom: standard error, and the daemon.
fn hook(operation: &str, xml: &str, socket: &Path) -> (String, String) {
    if socket.exists() {
        std::fs::remove_file(socket).expect("removed");
    }
    let listener = UnixListener::bind(socket).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hybond-hook"))
        .args(["web-1", operation, "begin", "-"])
        .env_clear()
        .env("HYBOND_HOOK_SOCKET", socket)
        // Where the daemon is asked, nobody answers.
        .env("HYBOND_HOOK_DEADLINE_MS", "300")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the hook starts");
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(xml.as_bytes())
        .expect("the hook reads all that libvirt writes");
    drop(pipe);
    let output = child.wait_with_output().expect("the hook ends");
    let mut asked = String::new();
    if let Ok((mut stream, _)) = listener.accept() {
        stream.set_nonblocking(false).expect("blocking");
        stream.read_to_string(&mut asked).expect("text");
    }
    (String::from_utf8(output.stderr).expect("UTF-8"), asked)
}

#[test]
fn no_secret_leaves_the_hook_whatever_is_wrong_with_the_xml() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("hook.sock");
    let whole = domain();
    let mut broken = vec![
        ("prepare", whole.clone(), true),
        // hybond's own part is wrong.
        ("prepare", whole.replace("policy='require'", "policy='x'"), false),
        ("migrate", whole.replace("aa:00:01' pool", "aa:00:02' pool"), false),
        ("migrate", whole.replace("type='direct'", "type='user'"), false),
        // The XML is.
        (
            "prepare",
            whole.replace(&format!("passwd='{SECRET}-vnc'"), &format!("passwd='a&{SECRET};'")),
            false,
        ),
        (
            "prepare",
            whole.replace(&format!("passwd='{SECRET}-vnc'"), &format!("passwd={SECRET}")),
            false,
        ),
        (
            "prepare",
            whole.replace("<graphics type='spice'", &format!("<{SECRET}><graphics type='spice'")),
            false,
        ),
        ("prepare", whole.replace("</qemu:commandline>", ""), false),
    ];
    // Cut off, at places all over it.
    let metadata = whole.find("</hybond:domain>").expect("there");
    for at in (metadata..whole.len() - 10).step_by(97) {
        broken.push(("restore", whole.get(..at).expect("ASCII").to_owned(), false));
    }
    for (operation, xml, understood) in broken {
        let (said, asked) = hook(operation, &xml, &socket);
        assert!(
            said.starts_with("hybond: ") && said.matches('\n').count() == 1,
            "one sentence: {said}"
        );
        assert_eq!(asked.contains("10GE"), understood, "{said}");
        assert!(!said.contains(SECRET) && said.len() < 1000, "{said}");
        assert!(!asked.contains(SECRET), "{asked}");
    }
}

#[test]
fn a_secret_that_is_told_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("hook.sock");
    // What hybond's own part of the XML says is passed on, and complained of.
    let pool = domain().replace("pool='10GE'", &format!("pool='{SECRET}'"));
    let (_, asked) = hook("prepare", &pool, &socket);
    assert!(asked.contains(SECRET), "{asked}");
    let policy = domain().replace("policy='require'", &format!("policy='{SECRET}'"));
    let (said, _) = hook("prepare", &policy, &socket);
    assert!(said.contains(SECRET), "{said}");
}
