#include "server/snapshots.h"

#include "worker/worker.h"

#include <stdlib.h>

struct question {
	struct snapshot_request request; /* first */
	bool is_back;
};

struct snapshots {
	struct snapshots_links links;
	unsigned count, missing;
	bool is_off;
	struct question questions[];
};

/* It is back, answered or not. True: it was the last one. */
static bool take_back_one(struct question *question)
{
	struct snapshots *snapshots = question->request.owner;
	question->is_back = true;
	return !--snapshots->missing;
}

static void on_heard(void *server, struct report *report)
{
	struct question *question =
	    (struct question *)(void *)((char *)report - offsetof(struct snapshot_request, report));
	struct snapshots *snapshots = question->request.owner;
	if (!take_back_one(question))
		return;
	if (snapshots->is_off)
		snapshots_free(snapshots);
	else
		snapshots->links.collected(server, snapshots);
}

/* In the worker's thread. */
static void on_answer(struct snapshot_request *request)
{
	const struct snapshots *snapshots = request->owner;
	request->report.deliver = on_heard;
	snapshots->links.post(snapshots->links.server, &request->report);
}

/* The worker has ended: so it has been called off. */
static void on_dropped(struct order *order)
{
	struct question *question = (struct question *)(void *)order;
	struct snapshots *snapshots = question->request.owner;
	if (take_back_one(question))
		snapshots_free(snapshots);
}

struct snapshots *snapshots_ask(struct worker *workers, unsigned count, size_t most,
				struct snapshots_links links)
{
	struct snapshots *snapshots = calloc(1, sizeof *snapshots + count * sizeof *snapshots->questions);
	if (!snapshots)
		return NULL;
	snapshots->links = links;
	snapshots->count = snapshots->missing = count;
	for (unsigned i = 0; i < count; i++) {
		struct snapshot_request *request = &snapshots->questions[i].request;
		request->owner = snapshots;
		request->most = most;
		request->answered = on_answer;
		request->order.drop = on_dropped;
		worker_ask_snapshot(&workers[i], request);
	}
	return snapshots;
}

void snapshots_call_off(struct snapshots *snapshots)
{
	snapshots->is_off = true;
}

unsigned snapshots_find_missing(const struct snapshots *snapshots)
{
	unsigned i = 0;
	while (i < snapshots->count && snapshots->questions[i].is_back)
		i++;
	return i;
}

const struct report *snapshots_find_failure(const struct snapshots *snapshots)
{
	for (unsigned i = 0; i < snapshots->count; i++)
		if (snapshots->questions[i].request.report.err)
			return &snapshots->questions[i].request.report;
	return NULL;
}

bool snapshots_move(struct snapshots *snapshots, struct kept *kept)
{
	kept->snapshots = calloc(snapshots->count, sizeof *kept->snapshots);
	if (!kept->snapshots)
		return false;
	kept->count = snapshots->count;
	for (unsigned i = 0; i < snapshots->count; i++) {
		kept->snapshots[i] = snapshots->questions[i].request.snapshot;
		snapshots->questions[i].request.snapshot = (struct snapshot){ 0 };
	}
	return true;
}

void snapshots_free(struct snapshots *snapshots)
{
	for (unsigned i = 0; i < snapshots->count; i++)
		snapshot_free(&snapshots->questions[i].request.snapshot);
	free(snapshots);
}
