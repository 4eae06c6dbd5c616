#include "worker/handover.h"

#include "worker/worker.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct handover *handover_new(unsigned worker_count)
{
	struct handover *handover = calloc(1, sizeof *handover + worker_count * sizeof *handover->parts);
	if (handover)
		handover->part_count = handover->missing = worker_count;
	return handover;
}

void handover_begin(struct handover *handover, struct worker *workers)
{
	for (unsigned i = 0; i < handover->part_count; i++) {
		handover->parts[i].whole = handover;
		worker_hand_over(&workers[i], &handover->parts[i]);
	}
}

static void handover_add(struct handover *handover, const struct handover_part *part)
{
	struct takeovers *sum = &handover->takeovers;
	sum->migrated += part->takeovers.migrated;
	sum->failed += part->takeovers.failed;
	sum->deferred += part->takeovers.deferred;
	sum->removed += part->takeovers.removed;
	handover->waiting += part->waiting;
	if (!*sum->why)
		memcpy(sum->why, part->takeovers.why, sizeof sum->why);
}

struct handover *handover_take(struct report *report)
{
	const struct handover_part *part =
	    (const struct handover_part *)(void *)((char *)report - offsetof(struct handover_part, report));
	struct handover *whole = part->whole;
	handover_add(whole, part);
	return --whole->missing ? NULL : whole;
}

unsigned handover_count_staying(const struct takeovers *takeovers)
{
	return takeovers->failed + takeovers->deferred + takeovers->removed;
}

bool handover_concerned_any(const struct handover *handover)
{
	return handover->takeovers.migrated || handover->waiting ||
	       handover_count_staying(&handover->takeovers);
}
