"""Check datasets on the disk: published counts, lists, labels and image files, and a quick status of each dataset."""
