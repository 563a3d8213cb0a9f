//! Many guests on one pool over two PFs, back and forth between two namespaced hosts. Short in the suite; `make soak` makes
//! it long. Size, order and the number of migrations at one time are said by `HYBOND_SOAK_*`: see `soak::Size`.

use anyhow::Result;
use hybond_lab::soak::{self, Size};
use hybond_lab::tier2_hybond::{on_stage, results};
use std::fs;

#[test]
#[ignore = "boots guests under TCG"]
fn guests_go_back_and_forth_and_each_standby_is_on_the_pf_of_its_vf() -> Result<()> {
    let size = Size::from_environment()?;
    eprintln!("{size:?}");
    on_stage("soak", |pair, programs, daemons| {
        let report = soak::run(pair, programs, &daemons, size)?;
        eprintln!("{}", report.summary()?);
        let file = results()?.join("soak.json");
        fs::write(&file, serde_json::to_string_pretty(&report)?)?;
        eprintln!("figures are in {}", file.display());
        daemons.into_iter().try_for_each(|daemon| daemon.stop())
    })
}
