"""The status page: HTML made on the server, useful without JavaScript, with charts as SVG and no other host."""
