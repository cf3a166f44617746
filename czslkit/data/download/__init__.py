"""Download datasets: fetch archives over HTTP, check them and unpack them into the field's layout."""
