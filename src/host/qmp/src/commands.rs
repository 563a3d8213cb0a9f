//! The commands that hybond uses, by name.

use crate::error::QmpError;
use crate::event::MigrationStatus;
use crate::qmp::Qmp;
use qapi::qmp;
use serde_json::{Value, json};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// For commands that QEMU answers at once, main loop permitting.
pub const QUICK: Duration = Duration::from_secs(10);

impl Qmp {
    /// Plugs a device. A VFIO device pins the guest's memory meanwhile: about 0.25 s per GiB.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn device_add(&self, device: Value, timeout: Duration) -> Result<(), QmpError> {
        self.command("device_add", device, None, timeout).await.map(drop)
    }

    /// Asks the guest to let go of a device; it is gone when [`crate::Event::DeviceDeleted`] says so.
    ///
    /// # Errors
    /// As [`Qmp::command`]; see [`QmpError::is_not_found`].
    pub async fn device_del(&self, id: &str) -> Result<(), QmpError> {
        let command = qmp::device_del { id: id.to_owned() };
        self.execute(&command, QUICK).await.map(drop)
    }

    /// Hands QEMU a descriptor under a name, which the next command that uses the name uses up, even if it fails.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn getfd(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        let arguments = json!({"fdname": name});
        self.command("getfd", arguments, Some(fd), QUICK).await.map(drop)
    }

    /// Closes a descriptor that was handed over and not used.
    ///
    /// # Errors
    /// As [`Qmp::command`]; see [`QmpError::is_not_found`].
    pub async fn closefd(&self, name: &str) -> Result<(), QmpError> {
        let command = qmp::closefd {
            fdname: name.to_owned(),
        };
        self.execute(&command, QUICK).await.map(drop)
    }

    /// Makes an object such as `iommufd`.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn object_add(&self, object: Value) -> Result<(), QmpError> {
        self.command("object-add", object, None, QUICK).await.map(drop)
    }

    /// Removes an object; refused while it is in use.
    ///
    /// # Errors
    /// As [`Qmp::command`]; see [`QmpError::is_not_found`].
    pub async fn object_del(&self, id: &str) -> Result<(), QmpError> {
        let command = qmp::object_del { id: id.to_owned() };
        self.execute(&command, QUICK).await.map(drop)
    }

    /// Makes a network back end. `type=tap` takes a descriptor's name from [`Qmp::getfd`].
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn netdev_add(&self, netdev: Value) -> Result<(), QmpError> {
        self.command("netdev_add", netdev, None, QUICK).await.map(drop)
    }

    /// Removes a network back end.
    ///
    /// # Errors
    /// As [`Qmp::command`]; see [`QmpError::is_not_found`].
    pub async fn netdev_del(&self, id: &str) -> Result<(), QmpError> {
        let command = qmp::netdev_del { id: id.to_owned() };
        self.execute(&command, QUICK).await.map(drop)
    }

    /// Whether the guest's CPUs run.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn is_running(&self) -> Result<bool, QmpError> {
        // Not through the typed answer, whose list of run states ends where some release of QEMU ended.
        let answer = self.command("query-status", Value::Null, None, QUICK).await?;
        Ok(answer["running"].as_bool().unwrap_or(false))
    }

    /// State of the latest migration.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn query_migrate(&self) -> Result<MigrationStatus, QmpError> {
        let answer = self.command("query-migrate", Value::Null, None, QUICK).await?;
        let Ok(status) = answer["status"].as_str().unwrap_or("none").parse();
        Ok(status)
    }

    /// Calls off a migration; without one, nothing happens.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.execute(&qmp::migrate_cancel {}, QUICK).await.map(drop)
    }

    /// How often QEMU announces a guest that has come by migration, of its own accord and with every NIC that it knows, once it
    /// runs. Five times in 850 ms where nothing is said; 0: never.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn announce_arrivals(&self, rounds: u32) -> Result<(), QmpError> {
        let rounds = json!({ "announce-rounds": rounds });
        self.command("migrate-set-parameters", rounds, None, QUICK)
            .await
            .map(drop)
    }

    /// Ids of all devices that were given one.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn devices(&self) -> Result<Vec<String>, QmpError> {
        let command = qmp::qom_list {
            path: "/machine/peripheral".into(),
        };
        let entries = self.execute(&command, QUICK).await?;
        // Besides the devices the container has a property `type`.
        Ok(entries
            .into_iter()
            .filter(|e| e.type_.starts_with("child<"))
            .map(|e| e.name)
            .collect())
    }

    /// QEMU's release: major, minor, micro.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub async fn query_version(&self) -> Result<(i64, i64, i64), QmpError> {
        let version = self.execute(&qmp::query_version {}, QUICK).await?.qemu;
        Ok((version.major, version.minor, version.micro))
    }
}
