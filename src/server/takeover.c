/*
 * Another process takes over the sockets, while our connections live on.
 *
 * Both processes hold the sockets until the new one serves. Then this one is LEAVING: it accepts no more, serves on for
 * timeout.drain, and drains. The file of a Unix socket belongs to whoever serves alone (listener_own(),
 * listener_share()).
 */

#include "server/internal.h"

#include "base/log.h"
#include "config/config.h"
#include "restart/program.h"

#include <stdlib.h>
#include <unistd.h>

static void on_time_to_leave(uv_timer_t *timer)
{
	struct server *server = timer->data;
	log_write(LOG_INFO, "draining", F_INT("open", server_count_open(server)),
		  F_INT("deadline_ms", server->config->drain_ms));
	stop_drain(server);
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
	acceptor_stop(&server->acceptor);
	pulse_ask_nobody(&server->pulse);
	commands_leave(&server->commands);
	server->stage = LEAVING;
	atomic_store(&server->leaving, true);
	log_write(LOG_INFO, "upgraded: the new process has taken over", F_INT("pid", pid),
		  F_INT("open", server_count_open(server)), F_INT("deadline_ms", ms));
	commands_upgraded(&server->commands, pid, NULL);
	if (!server_count_open(server))
		stop_drain(server);
	else if (ms)
		uv_timer_start(&server->last_resort, on_time_to_leave, ms, 0);
}

void takeover_on_failure(void *data, const char *why)
{
	struct server *server = data;
	commands_upgraded(&server->commands, 0, why);
}

/* Why not now, or NULL. */
static const char *upgrade_objection(const struct server *server)
{
	if (server->stage != SERVING)
		return "upgrade refused: the server is not serving";
	if (server->upgrade.stage != UPGRADE_IDLE)
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

/*
 * The sockets in the order of the configuration, which is how listeners without a port find theirs again; the control
 * socket last.
 */
const char *takeover_begin(struct server *server)
{
	unsigned n = server->config->listener_count;
	const char *objection = upgrade_objection(server);
	struct bequest *sockets = calloc(n + 1, sizeof *sockets);
	if (!sockets)
		objection = "upgrade refused: not enough memory";
	if (!objection)
		objection = call_reload_off(server);
	if (objection)
		log_write(LOG_WARN, objection, F_INT("pid", server->upgrade.pid));
	if (!objection)
		requests_look_around(server);
	for (unsigned i = 0; !objection && i < n; i++)
		sockets[i] = listener_bequeath(server_listener(server, i));
	if (!objection) {
		sockets[n] = commands_bequeath(&server->commands);
		upgrade_begin(&server->upgrade, sockets, sockets[n].fd < 0 ? n : n + 1,
			      server->config->upgrade_ms);
	}
	free(sockets);
	return objection;
}
