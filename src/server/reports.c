/* What workers and the loader report. */

#include "server/internal.h"

#include "base/log.h"
#include "config/config.h"

void reports_post(void *data, struct report *report)
{
	struct server *server = data;
	mailbox_push(&server->mailbox, &report->mail);
	uv_async_send(&server->wake);
}

static void tell_reloaded(struct server *server)
{
	if (!server->reloads.running && server->stage == SERVING)
		notify_tell(&server->notify, "READY=1");
}

/* ---- of the loader ---- */

/* Who comes by a listener that is no more belongs to the old generation, so that ends before the workers are told. */
static void change_listeners(struct server *server, struct report *report)
{
	struct loading *loading = (struct loading *)(void *)report;
	if (report->err || loading->unchanged || loading->is_candidate || server->stage != SERVING)
		return;
	if (!reloads_admit(&server->reloads, report))
		return;
	if (acceptor_prepare(&server->acceptor, loading->next, report->text, sizeof report->text))
		reloads_reject(&server->reloads, report);
	else
		acceptor_release(&server->acceptor, server->config, loading->next);
}

static void on_loaded(void *data, struct report *report)
{
	struct server *server = data;
	change_listeners(server, report);
	reloads_flip(&server->reloads, report, server->stage == SERVING);
	tell_reloaded(server);
}

static void on_buried(void *data, struct report *report)
{
	(void)report;
	stop_loader_ended(data);
}

struct loader_links reports_loader_links(struct server *server)
{
	return (struct loader_links){ server, reports_post, on_loaded, on_buried };
}

/* ---- of a worker ---- */

static void reports_on_ready(void *data, struct report *report)
{
	struct server *server = data;
	reloads_know(&server->reloads, server->workers[report->worker].generation);
	if (++server->ready == server->config->workers && server->stage == STARTING)
		start_serving(server);
}

/* It has come to nothing at its start. One that was called off has not failed: the server stops. */
static void on_failed(void *data, struct report *report)
{
	struct server *server = data;
	server->stopped++;
	server->workers[report->worker].has_stopped = true;
	if (report->err == UV_ECANCELED)
		return;
	if (!server->failed) {
		log_write(LOG_ERROR, "cannot start", F_INT("worker", report->worker),
			  F_TEXT("excerpt", report->text));
		notify_failed(&server->notify, report->text);
	}
	server->script_failed = server->script_failed || (!server->failed && report->err == UV_EINVAL);
	server->failed = true;
	if (server->stage != DRAINING)
		stop_drain(server);
}

static void on_stopped(void *data, struct report *report)
{
	struct server *server = data;
	server->workers[report->worker].has_stopped = true;
	if (++server->stopped == server->started)
		recorder_bound_rest(&server->recorder);
}

static void on_adopted(void *data, struct report *report)
{
	struct server *server = data;
	(void)report;
	reloads_adopted(&server->reloads, server->config, server->stage == SERVING);
	tell_reloaded(server);
}

static void on_retired(void *data, struct report *report)
{
	reloads_bury(&((struct server *)data)->reloads, report);
}

static void on_handed_over(void *data, struct report *report)
{
	reloads_handed_over(&((struct server *)data)->reloads, report);
}

static void on_evicted(void *data, struct report *report)
{
	commands_evicted(&((struct server *)data)->commands, report);
}

static void on_taped(void *data, struct report *report)
{
	(void)report;
	recorder_taped(&((struct server *)data)->recorder);
}

const struct report_receivers REPORT_RECEIVERS = {
	.ready = reports_on_ready,
	.failed = on_failed,
	.stopped = on_stopped,
	.adopted = on_adopted,
	.retired = on_retired,
	.handed_over = on_handed_over,
	.evicted = on_evicted,
	.taped = on_taped,
};

/* ---- the mail ---- */

void reports_on_wake(uv_async_t *wake)
{
	struct server *server = wake->data;
	struct mail *next, *mail = mailbox_take(&server->mailbox);
	for (; mail; mail = next) {
		struct report *report = (struct report *)(void *)mail;
		next = mail->next;
		report->deliver(server, report);
	}
	server_look_at_stalls(server);
	recorder_look(&server->recorder);
	reloads_look(&server->reloads);
	takeover_look(server);
	if (server->stage == LEAVING && !server_count_open(server))
		stop_drain(server);
	if (server->stopped == server->started && !server->reloads.running &&
	    recorder_is_idle(&server->recorder) && !server->finishing)
		stop_finish(server);
}
