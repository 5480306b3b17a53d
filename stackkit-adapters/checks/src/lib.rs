//! Health checks of what is no datastore: web services, workers, ports, commands, disks, processes and connection pools; and a
//! webhook for transitions.
