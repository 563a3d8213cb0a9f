//! Domains of the lab as libvirt XML: ordinary guests, before hybond.

/// Where the hosts keep the guest's kernel and initramfs. Tests may put another initramfs there.
pub const GUEST_FILES: &str = "/var/lib/lab/guest";

/// A guest that boots the lab's kernel and initramfs.
#[derive(Debug, Clone)]
pub struct Domain {
    /// libvirt's name.
    pub name: String,
    /// libvirt's UUID.
    pub uuid: String,
    /// MAC address and lower device (a PF) of each virtio NIC, which are macvtaps as libvirt makes them.
    pub nics: Vec<(String, String)>,
    /// Added to the guest's kernel command line: see `images/guest/init` for what the guest knows.
    pub kernel_arguments: String,
    /// Initramfs on the host.
    pub initramfs: String,
    /// Whether the host has nested KVM for it. Without, it is TCG: in tier 2, and never in tier 3, where it would take
    /// eight minutes to boot.
    pub kvm: bool,
    /// Memory in MiB.
    pub memory: u32,
    /// Whether the memory is of the host's huge pages.
    pub huge_pages: bool,
    /// A qcow2 file on the host, as a disk that the guest need not know of.
    pub disk: Option<String>,
    /// Whether a guest that reboots starts again. Otherwise it ends.
    pub restarts: bool,
}

impl Domain {
    /// The usual guest of tier 3, its NIC on `pf`: MAC 52:54:00:aa:00:01, 10.88.0.50, and the IPv6 address that goes with
    /// the MAC. A macvtap only passes the multicast groups that are on it, and that address needs no other.
    #[must_use]
    pub fn new(name: &str, pf: &str) -> Self {
        let (v4, v6) = addresses(1);
        Self {
            name: name.into(),
            uuid: "a2a2a2a2-0000-4000-8000-000000000002".into(),
            nics: vec![("52:54:00:aa:00:01".into(), pf.into())],
            kernel_arguments: format!("lab.ip={v4}/24 lab.ip6={v6}/64"),
            initramfs: format!("{GUEST_FILES}/initramfs"),
            kvm: true,
            memory: 256,
            huge_pages: true,
            disk: None,
            restarts: false,
        }
    }

    /// The usual guest of tier 2: the same without KVM and huge pages.
    #[must_use]
    pub fn emulated(name: &str, pf: &str) -> Self {
        Self {
            kvm: false,
            huge_pages: false,
            ..Self::new(name, pf)
        }
    }

    /// The same as one of many: the UUID, MAC and addresses of guest `number`, from 1. Number 1 is the usual guest's.
    #[must_use]
    pub fn numbered(mut self, number: u8) -> Self {
        self.uuid = format!("a2a2a2a2-0000-4000-8000-0000000000{:02x}", u16::from(number) + 1);
        for (nic, _) in &mut self.nics {
            *nic = format!("52:54:00:aa:00:{number:02x}");
        }
        let (v4, v6) = addresses(number);
        self.kernel_arguments = format!("lab.ip={v4}/24 lab.ip6={v6}/64");
        self
    }

    /// What `virsh define` takes.
    #[must_use]
    pub fn xml(&self) -> String {
        let Self {
            name,
            uuid,
            kernel_arguments,
            initramfs,
            memory,
            ..
        } = self;
        let virt = if self.kvm { "kvm" } else { "qemu" };
        let backing = if self.huge_pages {
            "\n  <memoryBacking>\n    <hugepages/>\n  </memoryBacking>"
        } else {
            ""
        };
        let on_reboot = if self.restarts { "restart" } else { "destroy" };
        let mut nics = String::new();
        for (mac, pf) in &self.nics {
            nics += &format!(
                "
    <interface type='direct'>
      <mac address='{mac}'/>
      <source dev='{pf}' mode='bridge'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>"
            );
        }
        let disk = self.disk.as_ref().map_or_else(String::new, |file| {
            format!(
                "
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{file}'/>
      <target dev='vda' bus='virtio'/>
    </disk>"
            )
        });
        // qemu64 without svm runs in the nested KVM of an emulated AMD processor. tsc=unstable: under TCG the clocks of
        // two hosts differ by more than the guest's watchdog tolerates after a migration. No HPET, as management
        // tools have it: a guest may leave its timer on and masked, and QEMU serves that 250 times a second, which takes a
        // sixth of an emulated host.
        format!(
            "<domain type='{virt}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>{backing}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-10.0'>hvm</type>
    <kernel>{GUEST_FILES}/vmlinuz</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off nokaslr tsc=unstable lab.quiet {kernel_arguments}</cmdline>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='disable' name='svm'/>
  </cpu>
  <clock offset='utc'>
    <timer name='hpet' present='no'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>{on_reboot}</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'/>{disk}{nics}
    <serial type='pty'>
      <log file='/var/log/libvirt/qemu/{name}-console.log' append='on'/>
      <target port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <channel type='unix'>
      <target type='virtio' name='org.hybond.test.0'/>
    </channel>
    <memballoon model='none'/>
    <video>
      <model type='none'/>
    </video>
  </devices>
</domain>
"
        )
    }
}

/// Addresses of guest `number` on the data network, the second of which goes with its MAC.
#[must_use]
pub fn addresses(number: u8) -> (String, String) {
    (
        format!("10.88.0.{}", 49 + u16::from(number)),
        format!("fd88::5054:ff:feaa:{number:x}"),
    )
}
