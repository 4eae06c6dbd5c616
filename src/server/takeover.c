/*
 * Another process takes over the sockets, while our connections live on.
 *
 * Both processes hold the sockets until the new one serves. Then this one is LEAVING: it accepts no more, serves on for
 * timeout.drain, and drains. Where the script has a snapshot(), the workers are asked for theirs before anything else,
 * and the new process has them as well. The file of a Unix socket belongs to whoever serves alone (listener_own(),
 * listener_share()).
 */

#include "server/internal.h"

#include "base/limits.h"
#include "base/log.h"
#include "config/config.h"
#include "restart/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_time_to_leave(uv_timer_t *timer)
{
	struct server *server = timer->data;
	log_write(LOG_INFO, "draining", F_INT("open", server_count_open(server)),
		  F_INT("deadline_ms", server->config->drain_ms));
	stop_drain(server);
}

/* The new process reads datagrams once this end of its gate is closed. */
static void open_gate(struct server *server)
{
	if (server->gate >= 0)
		close(server->gate);
	server->gate = -1;
}

void takeover_look(struct server *server)
{
	if (server->stage == LEAVING && acceptor_has_handed_over(&server->acceptor))
		open_gate(server);
}

/*
 * The sockets live on in the other process, so our copies are closed without ado. To drain at once, as for TERM, would
 * break the promise that nobody notices: a client whose connection was accepted in the last moment and who is about to
 * ask would find it closed.
 */
void takeover_on_done(void *data, pid_t pid)
{
	struct server *server = data;
	uint32_t ms = server->config->drain_ms;
	for (unsigned i = 0; i < server->config->listener_count; i++)
		listener_share(server_listener(server, i));
	reloads_stop(&server->reloads, "another process has taken over");
	acceptor_stop(&server->acceptor, true);
	pulse_ask_nobody(&server->pulse);
	commands_leave(&server->commands);
	server->stage = LEAVING;
	atomic_store(&server->leaving, true);
	log_write(LOG_INFO, "upgraded: the new process has taken over", F_INT("pid", pid),
		  F_INT("open", server_count_open(server)), F_INT("deadline_ms", ms));
	commands_upgraded(&server->commands, pid, NULL);
	takeover_look(server);
	if (!server_count_open(server))
		stop_drain(server);
	else if (ms)
		uv_timer_start(&server->last_resort, on_time_to_leave, ms, 0);
}

void takeover_on_failure(void *data, const char *why)
{
	struct server *server = data;
	open_gate(server);
	commands_upgraded(&server->commands, 0, why);
}

/* Why not now, or NULL. */
static const char *upgrade_objection(const struct server *server)
{
	if (server->stage != SERVING)
		return "upgrade refused: the server is not serving";
	if (takeover_is_under_way(server))
		return "upgrade refused: one is under way";
	if (getpid() == 1)
		return "upgrade refused: the end of process 1 is the end of its container";
	if (program_ends_init())
		return "upgrade refused: process 1 ends with this process, and so does its container";
	return NULL;
}

/*
 * The new process loads the script as it is, so nobody needs a reload that has not come far. NULL, or why it goes on.
 */
static const char *call_reload_off(struct server *server)
{
	if (!reloads_is_loading(&server->reloads))
		return NULL;
	reloads_call_off(&server->reloads, "an upgrade is under way");
	if (reloads_is_loading(&server->reloads))
		return "upgrade refused: a reload is under way";
	if (!server->reloads.running)
		notify_tell(&server->notify, "READY=1");
	return NULL;
}

static bool has_datagrams(const struct server *server)
{
	for (unsigned i = 0; i < server->config->listener_count; i++)
		if (server->config->listeners[i].kind == LISTENER_UDP)
			return true;
	return false;
}

/*
 * A datagram has one reader. So the new process waits at this pipe's end until our flows have sockets of their own: it
 * has bound by then what it binds, and whatever becomes of us, the other end is closed. -1: it need not wait.
 */
static int make_gate(struct server *server)
{
	int ends[2];
	open_gate(server);
	if (!has_datagrams(server))
		return -1;
	if (pipe2(ends, O_CLOEXEC)) {
		log_write(LOG_WARN, "the new process will not wait for our flows: some may begin twice",
			  F_TEXT("error", strerror(errno)));
		return -1;
	}
	server->gate = ends[1];
	return ends[0];
}

static unsigned count_bequests(struct server *server)
{
	unsigned n = 0;
	for (unsigned i = 0; i < server->config->listener_count; i++)
		n += listener_count_bequests(server_listener(server, i));
	return n;
}

/*
 * The sockets in the order of the configuration, which is how listeners without a port find theirs again; the control
 * socket last.
 */
static bool start_successor(struct server *server, int snapshots)
{
	unsigned n = 0;
	struct bequest *sockets = calloc(count_bequests(server) + 3, sizeof *sockets);
	if (!sockets)
		return false;
	for (unsigned i = 0; i < server->config->listener_count; i++)
		n += listener_bequeath(server_listener(server, i), sockets + n);
	int gate = make_gate(server);
	if (gate >= 0)
		sockets[n++] = (struct bequest){ .fd = gate, .name = INHERITED_GATE };
	if (snapshots >= 0)
		sockets[n++] = (struct bequest){ .fd = snapshots, .name = INHERITED_SNAPSHOTS };
	sockets[n] = commands_bequeath(&server->commands);
	upgrade_begin(&server->upgrade, sockets, sockets[n].fd < 0 ? n : n + 1, server->config->upgrade_ms);
	if (gate >= 0)
		close(gate); /* the new process has it by now */
	free(sockets);
	return true;
}

/* ---- what the scripts keep ---- */

/* Before there is a new process. */
static void takeover_fail(struct server *server, unsigned worker, const char *why)
{
	log_write(LOG_ERROR, "upgrade failed: this process serves on",
		  F_INT("generation", server->reloads.newest), F_INT("worker", worker),
		  F_TEXT("excerpt", why));
	takeover_on_failure(server, why);
}

/* The descriptor behind which it lies, or a negative error. */
static int write_snapshots(struct snapshots *snapshots)
{
	struct kept kept = { 0 };
	int fd = snapshots_move(snapshots, &kept) ? kept_write(&kept) : UV_ENOMEM;
	kept_free(&kept);
	return fd;
}

static void hand_on(struct server *server, struct snapshots *snapshots)
{
	char why[LIMITS_TEXT_BYTES];
	int fd = write_snapshots(snapshots);
	if (fd < 0)
		takeover_fail(server, 0, limits_explain(fd, why, sizeof why));
	else if (!start_successor(server, fd))
		takeover_fail(server, 0, limits_explain(UV_ENOMEM, why, sizeof why));
	if (fd >= 0)
		close(fd);
}

static void on_collected(void *data, struct snapshots *snapshots)
{
	struct server *server = data;
	const struct report *failed = snapshots_find_failure(snapshots);
	uv_timer_stop(&server->last_resort);
	server->snapshots = NULL;
	if (failed)
		takeover_fail(server, failed->worker, failed->text);
	else
		hand_on(server, snapshots);
	snapshots_free(snapshots);
}

static void forget_snapshots(struct server *server)
{
	uv_timer_stop(&server->last_resort);
	snapshots_call_off(server->snapshots);
	server->snapshots = NULL;
}

static void on_no_answer(uv_timer_t *timer)
{
	struct server *server = timer->data;
	unsigned worker = snapshots_find_missing(server->snapshots);
	char why[128];
	snprintf(why, sizeof why, "worker %u did not take its snapshot within %u ms (timeout.upgrade)",
		 worker, server->config->upgrade_ms);
	forget_snapshots(server);
	takeover_fail(server, worker, why);
}

/* False: no memory. */
static bool ask_workers(struct server *server)
{
	struct snapshots_links links = { server, reports_post, on_collected };
	server->snapshots =
	    snapshots_ask(server->workers, server->started, server->config->snapshot_bytes, links);
	if (server->snapshots && server->config->upgrade_ms)
		uv_timer_start(&server->last_resort, on_no_answer, server->config->upgrade_ms, 0);
	return server->snapshots;
}

bool takeover_is_under_way(const struct server *server)
{
	return server->snapshots || server->upgrade.stage != UPGRADE_IDLE;
}

void takeover_cancel(struct server *server)
{
	upgrade_cancel(&server->upgrade);
	if (!server->snapshots)
		return;
	forget_snapshots(server);
	log_write(LOG_WARN, "upgrade cancelled: the server stops");
	takeover_on_failure(server, "the server stops");
}

const char *takeover_begin(struct server *server)
{
	const char *objection = upgrade_objection(server);
	if (!objection)
		objection = call_reload_off(server);
	if (!objection) {
		requests_look_around(server);
		bool has_begun =
		    server->config->has_snapshot ? ask_workers(server) : start_successor(server, -1);
		objection = has_begun ? NULL : "upgrade refused: not enough memory";
	}
	if (objection)
		log_write(LOG_WARN, objection, F_INT("pid", server->upgrade.pid));
	return objection;
}

/* ---- in the new process ---- */

static void warn_of_surplus(const struct kept *kept, unsigned workers)
{
	char list[128];
	size_t at = 0;
	*list = '\0';
	for (unsigned i = workers; i < kept->count && at < sizeof list; i++)
		if (kept->snapshots[i].len)
			at += (size_t)snprintf(list + at, sizeof list - at, "%s%u", at ? ", " : "", i);
	if (*list)
		log_write(LOG_WARN,
			  "what some workers of the old process keep is dropped: there are fewer now",
			  F_TEXT("dropped", list), F_INT("workers", workers));
}

bool takeover_take_kept(struct server *server)
{
	char why[256];
	int fd = server->inheritance.snapshots;
	if (fd < 0)
		return true;
	if (!kept_read(fd, &server->kept, why, sizeof why)) {
		server_cannot(server, "cannot start", why);
		return false;
	}
	warn_of_surplus(&server->kept, server->config->workers);
	return true;
}
