const response = await fetch("https://ai.sultatech.com/api/agents/chat", {
method: "POST",
headers: {
"Content-Type": "application/json",
"X-API-Key": "sulta_sk_xxx..."
},
body: JSON.stringify({
agentId: "AGENT_ID",
message: "Walk me through this month\'s KPI changes.",
stream: true
})
});
if (!response.ok) throw new Error("Request failed");
const reader = response.body?.getReader();
const decoder = new TextDecoder();
while (reader) {
const { value, done } = await reader.read();
if (done) break;
process.stdout.write(decoder.decode(value));
}
