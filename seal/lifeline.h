/*
When a rank dies, the others would wait for it for ever inside a collective. So every rank holds a TCP connection to rank 0, and a thread watches it: the system
closes the connection of a process that ends, however it ends, and keepalives tell of a machine that is gone. A rank that loses sight of another says
which and stops. One that ends by an error of its own says so to the others, and they leave with its status in silence: a mistake is one line, however many ranks there are.
*/
#ifndef SEAL_LIFELINE_H
#define SEAL_LIFELINE_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char host[256];
    int port;
    unsigned char token[16];  // who does not bring it is no rank of ours
} LifelineAddress;

void lifeline_listen(LifelineAddress* address, int local_only);  // rank 0, before the address is shared
void lifeline_start(const LifelineAddress* address, int rank, int n);  // all ranks: connect, then watch
void lifeline_unwatch(void);  // all ranks have come to their end: nobody watches any more
void lifeline_close(void);    // no rank watches any more: the connections go

#ifdef __cplusplus
}
#endif
#endif
