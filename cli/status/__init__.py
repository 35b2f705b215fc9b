"""``birnn status``: the network behind each topic, the judgement of each network, and the state of the updater."""
