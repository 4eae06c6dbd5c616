/*
 * Flows of a real UDP socket, to which whatever a source of choices says happens: peers send and fall silent, users
 * read, write, pause, close, get sockets of their own. It aborts where a datagram is handed up twice, changed, out of
 * order or to another than its flow, where one that is missing was not counted as dropped, or where something is held
 * at the end. One at a time.
 */
#pragma once

#include <stdint.h>

/* `choose` gives a number below its bound. */
void flow_model_start(uint32_t (*choose)(uint32_t bound));

/* Something happens. */
void flow_model_round(void);

/* All ends, and is looked at. */
void flow_model_end(void);

/* What has happened since the start, for who wants to know that it did. */
struct flow_model_counts {
	uint64_t sent, taken, dropped, truncated, replies, flows, parted;
};
const struct flow_model_counts *flow_model_counts(void);
