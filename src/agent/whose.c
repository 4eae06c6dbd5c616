#include "agent/whose.h"

#include "agent/resident.h"
#include "agent/work.h"

void whose(const struct channel *channel, struct whose *whose)
{
	bool is_on_conn = !channel->lone && !work_is_apps(channel);
	*whose = (struct whose){ .conn = F_INT("conn", channel->id), .peer_text = "" };
	if (is_on_conn)
		peer_text(channel->conn, whose->peer_text, sizeof whose->peer_text);
	if (work_is_apps(channel))
		whose->conn = F_TEXT("conn", NULL);
	whose->peer = F_TEXT("peer", whose->peer_text);
	whose->listener = F_TEXT("listener", is_on_conn ? channel->conn->endpoint->name : NULL);
	whose->agent = F_TEXT("agent", channel->lone ? resident_name(channel) : NULL);
}
