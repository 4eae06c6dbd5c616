#include "jobs/lanes.h"

#include "jobs/jobs.h"

#include <stddef.h>

static struct job *job_of(struct wheel_node *node)
{
	return (struct job *)(void *)((char *)node - offsetof(struct job, node));
}

void lanes_init(struct lanes *lanes)
{
	*lanes = (struct lanes){ .taken = 0 };
	for (unsigned i = 0; i < JOB_LANES_MAX; i++)
		wheel_list_init(&lanes->lane[i].first);
}

void lanes_set(struct lanes *lanes, const struct job_config *config)
{
	for (unsigned i = 0; i < JOB_LANES_MAX; i++)
		lanes->lane[i].most_running = i < config->lane_count ? config->lanes[i].workers : 0;
}

void lanes_put(struct lanes *lanes, struct job *job)
{
	struct lane *lane = &lanes->lane[job->lane];
	wheel_list_append(&lane->first, &job->node);
	lane->waiting++;
}

void lanes_remove(struct lanes *lanes, struct job *job)
{
	wheel_disarm(&job->node);
	lanes->lane[job->lane].waiting--;
}

static bool lane_is_ready(const struct lane *lane)
{
	bool is_full = lane->most_running && lane->running >= lane->most_running;
	return lane->waiting && !is_full;
}

static uint64_t first_number(const struct lane *lane)
{
	return job_of(lane->first.next)->number;
}

/* NULL: none is ready. */
static struct lane *choose(struct lanes *lanes)
{
	bool is_fair = (lanes->taken + 1) % LANES_FAIR_EVERY == 0;
	struct lane *found = NULL;
	for (unsigned i = 0; i < JOB_LANES_MAX && (is_fair || !found); i++) {
		struct lane *lane = &lanes->lane[i];
		if (lane_is_ready(lane) && (!found || first_number(lane) < first_number(found)))
			found = lane;
	}
	return found;
}

struct job *lanes_take(struct lanes *lanes)
{
	struct lane *lane = choose(lanes);
	if (!lane)
		return NULL;
	lanes->taken++;
	lane->running++;
	struct job *job = job_of(lane->first.next);
	lanes_remove(lanes, job);
	return job;
}

void lanes_over(struct lanes *lanes, const struct job *job)
{
	lanes->lane[job->lane].running--;
}
