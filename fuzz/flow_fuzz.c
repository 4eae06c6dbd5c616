/*
 * Flows of a UDP socket, to which whatever the input says happens; spec/support/flow_model.c has the list, and aborts
 * where a datagram is lost, changed or handed up twice.
 *
 * Input: a byte (for large numbers two) a choice.
 */
#include "support/flow_model.h"

#include <stddef.h>

enum { ROUNDS_MAX = 500 };

static const uint8_t *at, *end;

static uint32_t next_byte(void)
{
	return at < end ? *at++ : 0;
}

static uint32_t choose(uint32_t bound)
{
	uint32_t number = next_byte();
	if (bound > 256)
		number = number << 8 | next_byte();
	return number % bound;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	at = data;
	end = data + size;
	flow_model_start(choose);
	for (unsigned n = 0; at < end && n < ROUNDS_MAX; n++)
		flow_model_round();
	flow_model_end();
	return 0;
}
