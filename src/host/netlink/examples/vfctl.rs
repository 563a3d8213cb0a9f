//! Reads and sets a VF's attributes by hand: `vfctl PF NUMBER [mac=… vlan=… trust=on|off spoofchk=on|off rate=…]`.
#![allow(clippy::print_stdout)]

use hybond_netlink::{Netlink, VfConfig};
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: vfctl PF NUMBER [mac=… vlan=… trust=on|off spoofchk=on|off rate=…]";
    let pf = args.next().ok_or(usage)?.parse()?;
    let index = args.next().ok_or(usage)?.parse()?;
    let mut config = VfConfig::default();
    for arg in args {
        let (key, value) = arg.split_once('=').ok_or(usage)?;
        match key {
            "mac" => config.mac = Some(octets(value).ok_or(usage)?),
            "vlan" => config.vlan = Some(value.parse()?),
            "trust" => config.trust = Some(value == "on"),
            "spoofchk" => config.spoofchk = Some(value == "on"),
            "rate" => config.max_tx_mbps = Some(value.parse()?),
            _ => return Err(usage.into()),
        }
    }
    let netlink = Netlink::new()?;
    if config != VfConfig::default() {
        println!("{:?}", netlink.set_vf(&pf, index, &config).await?);
    }
    println!("{:?}", netlink.vf(&pf, index).await?);
    Ok(())
}

fn octets(text: &str) -> Option<[u8; 6]> {
    let parsed: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    parsed?.try_into().ok()
}
