// better-sse on Node's HTTP server, in its cheapest form: data arrives as text, and it is not serialized again.
import http from "node:http";
import { createChannel, createSession } from "better-sse";

const channels = new Map();
let published = 0;

function channelOf(name) {
	if (!channels.has(name)) channels.set(name, createChannel());
	return channels.get(name);
}

async function stream(request, response, url) {
	const session = await createSession(request, response, { keepAlive: 15000, serializer: String });
	for (const name of url.searchParams.get("channels").split(",")) channelOf(name).register(session);
}

async function publish(request, response) {
	let body = "";
	for await (const part of request) body += part;
	for (const line of body.split("\n")) {
		const cut = line.indexOf(" ");
		const channel = channels.get(line.slice(0, cut));
		channel?.broadcast(line.slice(cut + 1), "message", { eventId: String(++published) });
	}
	response.writeHead(204).end();
}

const server = http.createServer((request, response) => {
	const url = new URL(request.url, "http://localhost");
	return url.pathname === "/publish" ? publish(request, response) : stream(request, response, url);
});
server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
