//! A VF to vfio-pci, and back to what the host makes of it.
//!
//! `driver_override` names the only driver that may take the function, so neither a probe of another module nor a new
//! VF's automatic probe can win the race. VFIO's variant drivers count as vfio-pci: they present the same device.

use crate::Change;
use crate::error::{BindError, SysfsError};
use crate::sysfs::Sysfs;
use hybond_core::ids::Bdf;
use std::path::PathBuf;
use std::time::Duration;

const VFIO_PCI: &str = "vfio-pci";
/// Unbinding waits for the driver; vfio's waits until the last user has closed the device.
const PATIENCE: Duration = Duration::from_secs(15);

impl Sysfs {
    /// Binds a VF to vfio-pci.
    ///
    /// # Errors
    /// vfio-pci is not loaded, the group is shared with devices that the host uses, or the kernel refuses.
    pub async fn bind_vfio(&self, vf: Bdf) -> Result<Change, BindError> {
        let sys = self.clone();
        finished(vf, "the binding", move || sys.bind_now(vf)).await
    }

    /// Gives a VF back to the host: no override, and whatever driver the host has for it. [`Change::AlreadyThere`] where
    /// neither an override nor VFIO is on it. For VFs that [`Sysfs::bind_vfio`] made its own: one that the administrator
    /// had bound before is best left.
    ///
    /// # Errors
    /// The kernel refuses, or a process still has the device open.
    pub async fn unbind_vfio(&self, vf: Bdf) -> Result<Change, BindError> {
        let sys = self.clone();
        finished(vf, "the unbinding", move || sys.unbind_now(vf)).await
    }

    /// Binds a VF to the driver that the host has for it, anew where it has it already: drivers of VFs ask the PF for their
    /// address when they are bound (`igbvf_probe()`, `iavf_init_get_resources()`), and igb says of a later one "Reload the
    /// VF driver to make this change effective".
    ///
    /// # Errors
    /// The host has no driver for it, or the kernel refuses.
    pub async fn bind_host(&self, vf: Bdf) -> Result<String, BindError> {
        let sys = self.clone();
        finished(vf, "the binding to the host's driver", move || sys.bind_host_now(vf)).await
    }

    fn bind_host_now(&self, vf: Bdf) -> Result<String, BindError> {
        let look = |source| BindError::Sysfs { vf, source };
        if self.overridden(vf).map_err(look)? {
            self.write(self.device(vf).join("driver_override"), "\n")?;
        }
        if self.driver(vf).map_err(look)?.is_some() {
            self.write(self.device(vf).join("driver/unbind"), &vf.to_string())?;
        }
        self.write(self.path("bus/pci/drivers_probe"), &vf.to_string())?;
        match self.driver(vf).map_err(look)? {
            Some(driver) if !is_vfio(&driver) => Ok(driver),
            Some(found) => Err(BindError::ReadBack {
                vf,
                wanted: "the host's driver",
                found,
            }),
            None => {
                let autoprobe = self.device(vf).join("physfn/sriov_drivers_autoprobe");
                let autoprobe = crate::sysfs::attribute(&autoprobe).map_err(look)?;
                Err(BindError::NoHostDriver {
                    vf,
                    autoprobe: autoprobe.is_none_or(|text| text != "0"),
                })
            }
        }
    }

    fn bind_now(&self, vf: Bdf) -> Result<Change, BindError> {
        let look = |source| BindError::Sysfs { vf, source };
        let driver = self.driver(vf).map_err(look)?;
        self.refuse_shared_group(vf)?;
        if driver.as_deref().is_some_and(is_vfio) {
            return Ok(Change::AlreadyThere);
        }
        if !self.path("bus/pci/drivers/vfio-pci").exists() {
            return Err(BindError::NoDriver(vf));
        }
        self.write(self.device(vf).join("driver_override"), VFIO_PCI)?;
        if driver.is_some() {
            self.write(self.device(vf).join("driver/unbind"), &vf.to_string())?;
        }
        self.write(self.path("bus/pci/drivers_probe"), &vf.to_string())?;
        match self.driver(vf).map_err(look)? {
            Some(driver) if is_vfio(&driver) => Ok(Change::Made),
            found => Err(BindError::ReadBack {
                vf,
                wanted: VFIO_PCI,
                found: found.unwrap_or_else(|| "no driver".to_owned()),
            }),
        }
    }

    fn unbind_now(&self, vf: Bdf) -> Result<Change, BindError> {
        let look = |source| BindError::Sysfs { vf, source };
        let driver = match self.driver(vf) {
            Ok(driver) => driver,
            // sriov_numvfs went to 0 meanwhile: a VF that is not there is bound to nothing.
            Err(SysfsError::NoDevice(_)) => return Ok(Change::AlreadyThere),
            Err(e) => return Err(look(e)),
        };
        let bound = driver.as_deref().is_some_and(is_vfio);
        let overridden = self.overridden(vf).map_err(look)?;
        if !bound && !overridden {
            return Ok(Change::AlreadyThere);
        }
        // A newline alone clears it (`driver_set_override()`).
        self.write(self.device(vf).join("driver_override"), "\n")?;
        if bound {
            self.write(self.device(vf).join("driver/unbind"), &vf.to_string())?;
        }
        self.write(self.path("bus/pci/drivers_probe"), &vf.to_string())?;
        match self.driver(vf).map_err(look)? {
            Some(found) if is_vfio(&found) => Err(BindError::ReadBack {
                vf,
                wanted: "the host's driver",
                found,
            }),
            _ => Ok(Change::Made),
        }
    }

    fn overridden(&self, vf: Bdf) -> Result<bool, SysfsError> {
        let text = crate::sysfs::attribute(&self.device(vf).join("driver_override"))?;
        Ok(text.is_some_and(|t| t == VFIO_PCI))
    }

    /// The kernel gives a group out as a whole: with a member in the hands of a host driver it refuses at the first use,
    /// long after the binding (`iommu_group_claim_dma_owner()`). Bridges and pci-stub do no DMA of their own.
    fn refuse_shared_group(&self, vf: Bdf) -> Result<(), BindError> {
        let look = |source| BindError::Sysfs { vf, source };
        let group = self.iommu_group(vf).map_err(look)?.ok_or(BindError::NoGroup(vf))?;
        let mut others = Vec::new();
        for other in self.group_members(group).map_err(look)? {
            if other == vf {
                continue;
            }
            match self.driver(other) {
                Ok(Some(driver)) if !is_vfio(&driver) && driver != "pcieport" && driver != "pci-stub" => {
                    others.push(format!("{other} ({driver})"));
                }
                Ok(_) | Err(SysfsError::NoDevice(_)) => {}
                Err(e) => return Err(look(e)),
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        Err(BindError::SharedGroup {
            vf,
            group,
            others: others.join(", "),
        })
    }

    fn write(&self, path: PathBuf, text: &str) -> Result<(), BindError> {
        let result = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        match result {
            Ok(()) => {
                #[cfg(test)]
                if let Some(kernel) = &self.kernel {
                    kernel.written(&path, text);
                }
                Ok(())
            }
            Err(source) => Err(BindError::Write {
                path,
                text: text.to_owned(),
                source,
            }),
        }
    }
}

/// vfio-pci and the variant drivers made from it: `mlx5_vfio_pci`, `ice-vfio-pci` and others.
pub(crate) fn is_vfio(driver: &str) -> bool {
    driver.replace('_', "-").ends_with(VFIO_PCI)
}

/// Runs on a thread of its own, since a write to `unbind` may block inside the kernel without end.
async fn finished<T: Send + 'static>(
    vf: Bdf,
    doing: &'static str,
    work: impl FnOnce() -> Result<T, BindError> + Send + 'static,
) -> Result<T, BindError> {
    let stuck = || BindError::Stuck {
        vf,
        doing,
        seconds: PATIENCE.as_secs(),
    };
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        // The runtime is going down, or the work panicked: the outcome is unknown either way.
        Ok(Err(_)) | Err(_) => Err(stuck()),
    }
}
