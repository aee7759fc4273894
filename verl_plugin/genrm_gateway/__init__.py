"""The reward gateway: scoring as an HTTP server, in the wire formats that training frameworks speak.

main        the command `genrm-gateway`
catalog     names → what scores, from a file or from the cluster
formats     one request format each: what it says as samples, and scores as its answer; pure
app         the routes that score; desk: what they share; openapi: what their page says
relay       requests passed on to the pods of a RewardModel; openai_routes, events: those of OpenAI, also in events
peers       which of several gateways gathers a group
demand      Leases while somebody is scored
limits      who may ask, how much, how large; metrics: what was asked
"""
