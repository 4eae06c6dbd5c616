/*
 * A world (conn_world.h) in which anything may happen at any time, as somebody else's choices have it: a random
 * number generator's, or a fuzzer's.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* `choose` gives a number below its argument, which is 1 … 65,536. 0 or an error. */
int model_start(size_t buffer_limit_bytes, uint32_t (*choose)(uint32_t bound));

/* One thing happens: to a connection, or in the loop. */
void model_round(void);

/* The server goes away: everybody is drained, and at the deadline cut. world_end() follows. */
void model_drain(void);
