/* What becomes of messages for members that do not keep up. */
#pragma once

/* What a member that does not keep up meets, when as much waits for it as may. */
enum hub_policy {
	HUB_DISCONNECT,
	HUB_DROP_NEWEST,
	HUB_DROP_OLDEST,
	HUB_LATEST, /* a message takes the place of one with the same key; then as HUB_DROP_OLDEST */
};
