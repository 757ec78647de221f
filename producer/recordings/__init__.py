"""Reading a recording, whatever it is kept in, as the lines of messages that go onto the topic.

From the bottom up: `container` unpacks, `text` cuts into lines, `binance_archive` makes ticks of rows, `recording` puts
them together and refuses what is no recording, `tally` and `report` say what is in one, `sorting` puts one in order.
"""
