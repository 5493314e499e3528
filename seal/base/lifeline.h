/*
When a rank dies, the others would wait for it forever inside a collective. So every rank holds a TCP connection to
rank 0, and a thread watches it. The system closes the connection of a process however it ends. Each side also sends a
beat every second; after SILENCE_SECONDS without one the other counts as gone: its cable was pulled, its machine is off,
or it was stopped (SIGSTOP). A rank that loses another one says which and stops. A rank that stops because of an error
tells the others, and they exit with its status without a message: a mistake is one line, however many ranks there are.
*/
#ifndef SEAL_LIFELINE_H
#define SEAL_LIFELINE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIFELINE_HOSTS 16
typedef struct {
    // Numbers, IPv4 or IPv6: a machine has several, and not every one can be reached from everywhere.
    char hosts[LIFELINE_HOSTS][64];
    int n_hosts, port;
    unsigned char token[16];  // a connection that does not begin with it is not from one of our ranks
} LifelineAddress;

// Asked once per second: true, and why, where the ranks cannot continue although all of them live.
typedef bool (*LifelineBroken)(char* why, size_t size);

// Rank 0, before the address is shared. SEAL_ADDRESS in its environment names the one address to use.
void lifeline_listen(LifelineAddress* address, int local_only);
// All ranks: connects, then watches.
void lifeline_start(const LifelineAddress* address, int rank, int n, LifelineBroken broken);
void lifeline_unwatch(void);  // all ranks have come to their end: nobody watches any more
void lifeline_close(void);    // after every rank's lifeline_unwatch: closes the connections
// This rank's CUDA or NCCL call failed and it has printed why: the others leave with status 1.
void device_failed(void);

#ifdef __cplusplus
}
#endif
#endif
