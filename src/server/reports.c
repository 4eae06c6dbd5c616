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

static void take_loading(struct server *server, struct report *report)
{
	change_listeners(server, report);
	reloads_flip(&server->reloads, report, server->stage == SERVING);
	tell_reloaded(server);
}

/* A worker has come to nothing at its start. One that was called off has not failed: the server stops. */
static void take_failure(struct server *server, const struct report *report)
{
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

static void heed(struct server *server, struct report *report)
{
	switch (report->kind) {
	case REPORT_READY:
		reloads_know(&server->reloads, server->workers[report->worker].generation);
		if (++server->ready == server->config->workers && server->stage == STARTING)
			start_serving(server);
		break;
	case REPORT_FAILED:
		take_failure(server, report);
		break;
	case REPORT_STOPPED:
		server->workers[report->worker].has_stopped = true;
		if (++server->stopped == server->started)
			recorder_hurry(&server->recorder);
		break;
	case REPORT_LOADED:
		take_loading(server, report);
		break;
	case REPORT_ADOPTED:
		reloads_adopted(&server->reloads, server->config, server->stage == SERVING);
		tell_reloaded(server);
		break;
	case REPORT_HANDED_OVER:
		reloads_handed_over(&server->reloads, report);
		break;
	case REPORT_RETIRED:
		reloads_bury(&server->reloads, report);
		break;
	case REPORT_BURIED:
		stop_close(server);
		break;
	case REPORT_EVICTED:
		commands_evicted(&server->commands, report);
		break;
	case REPORT_TAPED:
		recorder_taped(&server->recorder);
		break;
	}
}

void reports_on_wake(uv_async_t *wake)
{
	struct server *server = wake->data;
	struct mail *next, *mail = mailbox_take(&server->mailbox);
	for (; mail; mail = next) {
		next = mail->next;
		heed(server, (struct report *)(void *)mail);
	}
	server_look_at_stalls(server);
	recorder_look(&server->recorder);
	reloads_look(&server->reloads);
	if (server->stage == LEAVING && !server_count_open(server))
		stop_drain(server);
	if (server->stopped == server->started && !server->reloads.running &&
	    recorder_is_idle(&server->recorder) && !server->finishing)
		stop_finish(server);
}
