/*
 * Connections over streams in memory, to which whatever the input says happens; spec/support/conn_model.c
 * has the list. It aborts when a connection is not told of its end exactly once, or of anything after it, when a
 * numbered frame or reply is missing, when something is left undone, or held at the end.
 *
 * Input: buffer limit, way to end, then a byte (for large numbers two) a choice.
 */
#include "support/conn_model.h"
#include "support/conn_world.h"

#include <stdlib.h>

enum { HEAD_BYTES = 2, ROUNDS_MAX = 2000 };

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
	static const size_t LIMITS[] = { 0, 20000, 60000, 200000 };

	if (size < HEAD_BYTES)
		return 0;
	at = data + HEAD_BYTES;
	end = data + size;
	if (model_start(LIMITS[data[0] % 4], choose))
		abort();
	for (unsigned n = 0; at < end && n < ROUNDS_MAX; n++)
		model_round();
	if (data[1] % 2)
		model_drain();
	world_end();
	return 0;
}
