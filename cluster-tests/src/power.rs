//! Power cuts: schedulers die and their disks lose what was not synced.

use crate::cluster::Cluster;

impl Cluster {
    /// Cuts the power of these schedulers in one instant. They are down afterwards; what they had not synced is gone.
    ///
    /// # Panics
    /// When they have no disks of their own, or nothing was cut.
    pub fn cut_power(&mut self, ids: &[u64]) {
        // Stopped first, all of them: none of them sees another one die.
        for id in ids {
            let member = self.schedulers.get_mut(id).expect("a scheduler of this cluster");
            if member.is_running() {
                member.process().pause();
            }
        }
        for id in ids {
            self.lose_scheduler(*id);
            let disk = self.disks.get_mut(id).expect("a disk of its own");
            disk.lose_unsynced().expect("the power is cut");
        }
    }

    /// Cuts the power of all schedulers in one instant and starts them again.
    pub fn cut_power_of_all(&mut self) {
        let ids: Vec<u64> = self.schedulers.keys().copied().collect();
        self.cut_power(&ids);
        ids.iter().for_each(|id| self.start_scheduler(*id));
    }
}
