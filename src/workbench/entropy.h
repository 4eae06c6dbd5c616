/*
 * What OpenSSL draws: of the apps of a network in memory from that network's seed, so that TLS there says the same each
 * time, and anywhere else from the system. Only a process that runs specifications does so: no other calls
 * entropy_begin().
 *
 * Threads: each for itself.
 */
#pragma once

#include <stdint.h>

/* From now on it may be told. Once, before OpenSSL draws. */
void entropy_begin(void);

/* This thread draws from that generator (links.h), or, NULL, from the system's. Returns the one that it has had. */
uint64_t *entropy_draw_from(uint64_t *state);
