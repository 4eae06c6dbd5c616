/*
 * What a frame costs between the socket's read() and its write(): decode, string, Lua, encode.
 *
 *   dispatch SCRIPT BATCH [FRAMES]
 *
 * Payloads are 32 bytes and all different. Prints nanoseconds of CPU per frame, the best of
 * several runs; under `valgrind --tool=callgrind` the instruction count is what repeats.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAYLOAD = 32, FRAME = PAYLOAD + 4, RUNS = 25 };

static uint64_t serial;

static void fill(uint8_t *at, unsigned frames)
{
	for (unsigned i = 0; i < frames; i++, at += FRAME) {
		serial++;
		memcpy(at + 4, &serial, sizeof serial);
	}
}

static void run(struct world *world, struct memory_conn *memory, uint8_t *input, unsigned batch,
		unsigned long frames)
{
	for (unsigned long done = 0; done < frames; done += batch) {
		fill(input, batch);
		memory->inward_bytes = (size_t)batch * FRAME;
		memcpy(memory->inward, input, memory->inward_bytes);
		memory_conn_run(memory);
		/* Under valgrind a batch takes so long that it is cut: the connection has another turn. */
		while (memory->outward_bytes != (size_t)batch * FRAME) {
			size_t before = memory->outward_bytes;
			conn_host_turn(&world->host, world->host.now_ms);
			memory_conn_run(memory);
			if (memory->outward_bytes == before) {
				fprintf(stderr, "expected %u replies\n", batch);
				exit(1);
			}
		}
		memory->outward_bytes = 0;
		vm_sample(&world->agents.vm);
	}
	vm_pace(&world->agents.vm, PAYLOAD);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: dispatch SCRIPT BATCH [FRAMES]\n");
		return 2;
	}
	unsigned batch = (unsigned)atoi(argv[2]);
	unsigned long frames = argc > 3 ? strtoul(argv[3], NULL, 0) : 2000000;
	static struct world world;
	harness_open(&world, argv[1]);
	struct memory_conn *memory = harness_connect(&world);
	uint8_t *input = calloc(batch, FRAME);
	for (unsigned i = 0; i < batch; i++)
		memcpy(input + i * FRAME, (uint8_t[]){ 0, 0, 0, PAYLOAD }, 4);
	memory_conn_put(memory, input, (size_t)batch * FRAME);
	memory->inward_bytes = 0;
	double best = 1e9;
	for (int i = 0; i < RUNS; i++) {
		uint64_t from = harness_cpu_ns();
		run(&world, memory, input, batch, frames);
		double ns = (double)(harness_cpu_ns() - from) / (double)frames;
		best = ns < best ? ns : best;
	}
	printf("{\"batch\":%u,\"ns_per_frame\":%.1f,\"heap_kb\":%d}\n", batch, best,
	       lua_gc(world.agents.vm.lua, LUA_GCCOUNT, 0));
	free(input);
	harness_close(&world);
	return 0;
}
