/*
 * The longest step of the collector with many agents in one VM.
 *
 *   gc_step [AGENTS] [SCRIPT]
 *
 * Opens that many connections, then serves frames round-robin through several collections, with the
 * collector in its own pace, and measures the CPU time of each event. An event's own work is a
 * few microseconds; what stands out is the collector. The collections themselves are then also run
 * step by step. Prints JSON.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAYLOAD = 32, FRAME = PAYLOAD + 4, BATCH = 16 };

static double serve(struct world *world, struct peer **peers, unsigned n, unsigned long events)
{
	static uint64_t serial;
	uint8_t input[BATCH * FRAME];
	double longest = 0;
	for (int i = 0; i < BATCH; i++)
		memcpy(input + i * FRAME, (uint8_t[]){ 0, 0, 0, PAYLOAD }, 4);
	for (unsigned long i = 0; i < events; i++) {
		struct peer *peer = peers[i % n];
		for (int k = 0; k < BATCH; k++) {
			serial++;
			memcpy(input + k * FRAME + 4, &serial, sizeof serial);
		}
		memory_stream_put(&peer->memory, input, sizeof input);
		uint64_t from = harness_cpu_ns();
		harness_serve(peer);
		double ms = (double)(harness_cpu_ns() - from) / 1e6;
		longest = ms > longest ? ms : longest;
		peer->memory.outward.bytes = 0;
		vm_sample(&world->workers[0].agents->vm);
		if (i % 4096 == 0)
			vm_pace(&world->workers[0].agents->vm, PAYLOAD);
	}
	return longest;
}

static double step_through(struct world *world)
{
	double longest = 0;
	for (int cycles = 0; cycles < 3;) {
		uint64_t from = harness_cpu_ns();
		cycles += lua_gc(world->workers[0].agents->vm.lua, LUA_GCSTEP, 0);
		double ms = (double)(harness_cpu_ns() - from) / 1e6;
		longest = ms > longest ? ms : longest;
	}
	return longest;
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 100000;
	static struct world world;
	harness_open(&world, argc > 2 ? argv[2] : "bench/apps/echo.lua");
	struct peer **peers = calloc(n, sizeof *peers);
	for (unsigned i = 0; i < n; i++)
		peers[i] = harness_connect(&world);
	vm_pace(&world.workers[0].agents->vm, PAYLOAD);
	serve(&world, peers, n, 200000); /* warm: compiled, sized */
	double served = serve(&world, peers, n, 400000), stepped = step_through(&world);
	printf("{\"agents\":%u,\"heap_kb\":%d,\"longest_event_ms\":%.3f,\"longest_explicit_step_ms\":%.3f,"
	       "\"longest_step_ms\":%.3f}\n",
	       n, lua_gc(world.workers[0].agents->vm.lua, LUA_GCCOUNT, 0), served, stepped,
	       served > stepped ? served : stepped);
	free(peers);
	harness_close(&world);
	return 0;
}
