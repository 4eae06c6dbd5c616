/* What requests know of their connection: the C side of lua/perilune/requests.lua. */
#include "http/http.h"
#include "agent/run.h"
#include "base/base64.h"
#include "bind/bind.h"
#include "conn/outgoing.h"
#include "conn/peer.h"
#include "tls/stream.h"

#include <openssl/evp.h>
#include <string.h>

/* MAY RAISE. The connection whose id is at 1; NULL: it has ended, or is another generation's. */
static struct channel *check_channel(lua_State *lua)
{
	static const lua_Number IDS_END = 9007199254740992.0; /* 2^53 */
	struct agents *agents = agents_of(lua);
	lua_Number id = luaL_checknumber(lua, 1);
	if (!agents->attached || !(id >= 1 && id < IDS_END))
		return NULL;
	struct conn_host *host = host_of_id(agents->host, (uint64_t)id);
	struct channel *channel = host ? idmap_get(&host->ids, (uint64_t)id) : NULL;
	return channel && channel->agents == agents ? channel : NULL;
}

/* MAY RAISE. peer(id) → "203.0.113.7:5060" | nil: it has ended */
static int l_http_peer(lua_State *lua)
{
	char text[PEER_TEXT_BYTES];
	const struct channel *channel = check_channel(lua);
	if (!channel)
		return 0;
	lua_pushstring(lua, peer_text(channel->conn, text, sizeof text));
	return 1;
}

/* MAY RAISE. tls(id) → what conn.tls is | nil */
static int l_http_tls(lua_State *lua)
{
	struct channel *channel = check_channel(lua);
	SSL *ssl = channel ? tls_stream_of(&channel->conn->io) : NULL;
	if (!ssl)
		return 0;
	bind_push_tls(lua, ssl);
	return 1;
}

/* phrase(status) → "Not Found", or "" */
static int l_http_phrase(lua_State *lua)
{
	lua_pushstring(lua, http_phrase((unsigned)luaL_checkinteger(lua, 1)));
	return 1;
}

/* MAY RAISE. websocket_accept(key) → what RFC 6455 has the server make of it */
static int l_http_websocket_accept(lua_State *lua)
{
	static const char GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	enum { KEY_BYTES = 24 };
	size_t n;
	const char *key = luaL_checklstring(lua, 1, &n);
	char text[KEY_BYTES + sizeof GUID], encoded[2 * EVP_MAX_MD_SIZE];
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned digest_bytes;
	luaL_argcheck(lua, n == KEY_BYTES, 1, "a key of 24 characters is expected");
	memcpy(text, key, KEY_BYTES);
	memcpy(text + KEY_BYTES, GUID, sizeof GUID);
	if (!EVP_Digest(text, KEY_BYTES + sizeof GUID - 1, digest, &digest_bytes, EVP_sha1(), NULL))
		return luaL_error(lua, "SHA-1 is not available");
	char *end = base64_encode(encoded, digest, digest_bytes, BASE64_PLAIN, true);
	lua_pushlstring(lua, encoded, (size_t)(end - encoded));
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "websocket_accept", l_http_websocket_accept },
	{ "peer", l_http_peer },
	{ "tls", l_http_tls },
	{ "phrase", l_http_phrase },
	{ NULL, NULL },
};

void bind_http(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
