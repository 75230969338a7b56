"""The fault campaign: runs whose workers, servers, disks, networks or clocks fail; the counts."""
